"""Codecs of directions by components: what the transform and the vector codec have in common.

A token is a centre plus a sum of components, each times a level. An index of a few bits picks a
level for every component of a group at once; the indices of a token are packed bit by bit. The five
arrays that say all of it are the same for both codecs, and so is decoding:

    centre (E, D) float32    one mean, or 256 centres, of which the first byte picks one
    basis  (K, D) float32    orthonormal components, one a row
    level  (K, 256) float32  the value of each component for each index of its group
    offset (K,) int32        bit of a token's codes at which the index of its group begins
    bits   (K,) uint8        of that index, 1 to 8; bits and bytes go from low to high

Legend: n samples, N and T tokens, D target width, C bytes a token, P = 8 C bits, K components,
G groups, E centres.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.codecs.spec import CodecSpec
from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.errors import DataError

Arrays = Mapping[str, NDArray[Any]]

LEVELS = 256
DTYPES = {"centre": "<f4", "basis": "<f4", "level": "<f4", "offset": "<i4", "bits": "u1"}


class _Tensors(NamedTuple):
    """The arrays, and what follows from them, on one device."""

    centre_ED: torch.Tensor
    basis_KD: torch.Tensor
    level_K256: torch.Tensor
    first_byte_K: torch.Tensor
    second_byte_K: torch.Tensor
    shift_K: torch.Tensor
    mask_K: torch.Tensor
    row_K: torch.Tensor
    group_of_bit_P: torch.Tensor
    shift_of_bit_P: torch.Tensor
    bit_value_8: torch.Tensor


class ComponentCodec(Codec):
    """A fitted codec; `fit_transform` and `fit_vector` make one."""

    def __init__(self, spec: CodecSpec, arrays: Arrays) -> None:
        """Take the arrays.

        Args:
            spec: of this codec, its bytes a token settled.
            arrays: `centre`, `basis`, `level`, `offset` and `bits`.

        Raises:
            DataError: they do not fit together.
        """
        self.spec = spec
        self.arrays = _checked(spec, arrays)
        self._places: dict[torch.device, _Tensors] = {}

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return self.spec.parameters(hash_of(self.arrays))

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Code directions; a token of length zero has none, and its codes are of some other."""
        held = self._on(tokens_nND.device)
        sound_nN = tokens_nND.isfinite().all(dim=-1)
        direction_nND = directions(tokens_nND.masked_fill(~sound_nN[..., None], 0))
        direction_TD = direction_nND.flatten(0, -2)
        centre_T = nearest(direction_TD, held.centre_ED)
        value_TK = (direction_TD - held.centre_ED[centre_T]) @ held.basis_KD.T
        index_TG = self._indices(value_TK, held.level_K256)
        if len(held.centre_ED) > 1:
            index_TG = torch.cat([centre_T[:, None], index_TG], dim=1)
        codes_TC = _packed(index_TG, held)
        codes_nNC = codes_TC.reshape(*direction_nND.shape[:-1], -1)
        return Attempt(Encoded(codes_nNC, None), sound_nN.all(dim=-1))

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Look up the levels, multiply by the basis, add the centre."""
        del scale_nN
        held = self._on(codes_nNC.device)
        codes_nNC = codes_nNC.to(torch.int32)
        window_nNK = codes_nNC[..., held.first_byte_K] | codes_nNC[..., held.second_byte_K] << 8
        index_nNK = (window_nNK >> held.shift_K) & held.mask_K
        value_nNK = held.level_K256.view(-1)[index_nNK + held.row_K]
        if len(held.centre_ED) == 1:
            return value_nNK @ held.basis_KD + held.centre_ED[0]
        return value_nNK @ held.basis_KD + held.centre_ED[codes_nNC[..., 0]]

    def _indices(self, value_TK: torch.Tensor, level_K256: torch.Tensor) -> torch.Tensor:
        """Return the indices (T, G) of the nearest levels, groups in the order of their bits."""
        raise NotImplementedError

    def groups(self) -> list[NDArray[np.int64]]:
        """List the components of each group, groups in the order of their bits."""
        offset_K = self.arrays["offset"]
        return [np.flatnonzero(offset_K == at) for at in np.unique(offset_K)]

    def _on(self, device: torch.device) -> _Tensors:
        if device not in self._places:
            self._places[device] = _tensors(self.spec, self.arrays, device)
        return self._places[device]


class TransformCodec(ComponentCodec):
    """Principal components, each quantised by itself."""

    def _indices(self, value_TK: torch.Tensor, level_K256: torch.Tensor) -> torch.Tensor:
        # Unused levels are infinite, and so is the border before them: nothing lies beyond.
        border_K255 = (level_K256[:, 1:] + level_K256[:, :-1]) / 2
        return torch.searchsorted(border_K255, value_TK.T.contiguous()).T


class VectorCodec(ComponentCodec):
    """A centre, and components of what is left, quantised in groups."""

    def _indices(self, value_TK: torch.Tensor, level_K256: torch.Tensor) -> torch.Tensor:
        groups = [torch.from_numpy(group).to(value_TK.device) for group in self.groups()]
        found = [nearest(value_TK[:, group], level_K256[group].T) for group in groups]
        return torch.stack(found, dim=1) if found else value_TK.new_empty((len(value_TK), 0)).long()


def nearest(vector_TD: torch.Tensor, centre_ED: torch.Tensor) -> torch.Tensor:
    """Return the index (T,) of the centre that is nearest to each vector."""
    if len(centre_ED) == 1:
        return torch.zeros(len(vector_TD), dtype=torch.int64, device=vector_TD.device)
    half_square_E = centre_ED.square().sum(dim=1) / 2
    return torch.addmm(half_square_E, vector_TD, centre_ED.T, alpha=-1).argmin(dim=1)


def hash_of(arrays: Arrays) -> str:
    """Hash arrays by name, type, shape and bytes: the same wherever they are kept."""
    digest = hashlib.sha256()
    for name, dtype in DTYPES.items():
        values = np.ascontiguousarray(arrays[name], dtype=dtype)
        digest.update(f"{name} {dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def array_shapes(spec: CodecSpec, width: int) -> dict[str, tuple[int, ...]]:
    """Return the arrays' shapes for targets of width D, with the most components there can be."""
    components = most_components(spec, width)
    return {
        "centre": (LEVELS if spec.name == "vector" else 1, width),
        "basis": (components, width),
        "level": (components, LEVELS),
        "offset": (components,),
        "bits": (components,),
    }


def most_components(spec: CodecSpec, width: int) -> int:
    """Return how many components a codec may have: at least a bit for each, and D at most."""
    return min(width, 8 * spec.code_width(width))


def _checked(spec: CodecSpec, arrays: Arrays) -> dict[str, NDArray[Any]]:
    missing = set(DTYPES) - set(arrays)
    if missing:
        raise DataError(f"the codec {spec.name} lacks its array {min(missing)}; make it again")
    held = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in DTYPES.items()}
    ends_K = held["offset"].astype(np.int64) + held["bits"]
    components, _ = held["basis"].shape if held["basis"].ndim == 2 else (-1, 0)
    sound = (
        components == len(held["level"]) == len(held["offset"]) == len(held["bits"])
        and held["centre"].shape[1:] == held["basis"].shape[1:]
        and held["level"].shape[1:] == (LEVELS,)
        and bool((held["offset"] >= 0).all() and (ends_K <= 8 * (spec.token_bytes or 0)).all())
        and bool((held["bits"] >= 1).all() and (held["bits"] <= 8).all())
    )
    if not sound:
        raise DataError(f"the arrays of the codec {spec.name} do not fit together; make it again")
    return held


def _tensors(spec: CodecSpec, arrays: Arrays, device: torch.device) -> _Tensors:
    offset_K = arrays["offset"].astype(np.int64)
    bits_K = arrays["bits"].astype(np.int64)
    last_byte = (spec.token_bytes or 1) - 1
    group_P, shift_P = _bit_map(spec, arrays)
    held = _Tensors(
        centre_ED=torch.from_numpy(arrays["centre"]),
        basis_KD=torch.from_numpy(arrays["basis"]),
        level_K256=torch.from_numpy(arrays["level"]),
        first_byte_K=torch.from_numpy(offset_K // 8),
        second_byte_K=torch.from_numpy(np.minimum(offset_K // 8 + 1, last_byte)),
        shift_K=torch.from_numpy((offset_K % 8).astype(np.int32)),
        mask_K=torch.from_numpy(((1 << bits_K) - 1).astype(np.int32)),
        row_K=torch.from_numpy(np.arange(len(offset_K)) * LEVELS),
        group_of_bit_P=torch.from_numpy(group_P),
        shift_of_bit_P=torch.from_numpy(shift_P),
        bit_value_8=2 ** torch.arange(8),
    )
    return _Tensors(*(tensor.to(device) for tensor in held))


def _bit_map(spec: CodecSpec, arrays: Arrays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say for each bit of a token which index it is of, and which bit of that.

    Bits that no index uses are of a last one more, which is zero.
    """
    starts, firsts = np.unique(arrays["offset"], return_index=True)
    fields = list(zip(starts.tolist(), arrays["bits"][firsts].tolist(), strict=True))
    if len(arrays["centre"]) > 1:
        fields.insert(0, (0, 8))
    size = 8 * (spec.token_bytes or 0)
    group_P, shift_P = np.full(size, len(fields)), np.zeros(size, np.int64)
    for number, (start, bits) in enumerate(fields):
        group_P[start : start + bits] = number
        shift_P[start : start + bits] = np.arange(bits)
    return group_P, shift_P


def _packed(index_TG: torch.Tensor, held: _Tensors) -> torch.Tensor:
    """Pack indices into bytes (T, C)."""
    padded = torch.nn.functional.pad(index_TG, (0, 1))
    bit_TP = (padded[:, held.group_of_bit_P] >> held.shift_of_bit_P) & 1
    bit_TC8 = bit_TP.reshape(len(bit_TP), -1, 8)
    return (bit_TC8 * held.bit_value_8).sum(dim=-1).to(torch.uint8)
