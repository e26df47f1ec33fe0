"""The codec of whole images: CLS first, then each patch by its kind and by what CLS says of it.

A token takes a byte that selects one of up to 256 centres, each of which belongs to one of up to 16
kinds, and further bytes. A kind has components of its own. A patch is the sum of

- its centre,
- what its kind predicts from the decoded CLS, and
- components of its kind, each times a level and times the spread that it has in that kind.

A byte selects the levels of a group of components; all kinds share these levels. CLS is coded in
the same way, as the last kind, and without a prediction. The arrays:

    centre  (S + 1, E, D) float16  the class byte E s + e selects centre e of kind s; CLS: kind S
    basis   (S + 1, K, D) float16  orthonormal components of each kind, one a row
    predict (S, P, D) float16      what each of the first P components of CLS adds to a patch
    spread  (S + 1, K) float32     standard deviation of each component in each kind
    level   (K, 256) float32       levels of components by their byte, in standard deviations
    place   (K,) int32             the byte of a token that selects the level of a component

Legend: n samples, N tokens (CLS first), L patches, T tokens, D target width, C bytes a token; S
kinds of patches, E centres of a kind, K components, P predicting components.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from milan_pipeline.codecs.component_arrays import BYTE, Arrays, checked_arrays, hash_of
from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.codecs.kinds import (
    Expectation,
    expectation_of,
    expected_losses,
    times_matrix_of_kind,
)
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.codecs.spectrum import directions


class _Held(NamedTuple):
    """The arrays on one device; `groups` lists the components of each byte."""

    centre_SED: torch.Tensor
    basis_SKD: torch.Tensor
    predict_SPD: torch.Tensor
    spread_SK: torch.Tensor
    level_K256: torch.Tensor
    place_K: torch.Tensor
    first_K: torch.Tensor
    groups: list[torch.Tensor]
    expected: Expectation


class JointCodec(Codec):
    """A fitted codec; `fitting.fit_codec` makes one."""

    def __init__(self, spec: CodecSpec, arrays: Arrays) -> None:
        """Take the arrays.

        Args:
            spec: this codec, with its bytes a token.
            arrays: those that the module names.

        Raises:
            DataError: the arrays do not fit together.
        """
        self.spec = spec
        self.arrays = checked_arrays(spec, arrays)
        self._by_device: dict[torch.device, _Held] = {}

    def parameters(self) -> dict[str, Any]:
        """Return what the identity records."""
        return self.spec.parameters(hash_of(self.arrays))

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Encode directions; a token of length zero gets the codes of an arbitrary direction."""
        held = self._on(tokens_nND.device)
        sound_nN = tokens_nND.isfinite().all(dim=-1)
        direction_nND = directions(tokens_nND.masked_fill(~sound_nN[..., None], 0))
        cls_nD, patches_nLD = direction_nND[:, 0], direction_nND[:, 1:]
        cls_nC = _coded_cls(cls_nD, held)
        added_nSD = _predictions(_decoded_cls(cls_nC, held), held)
        class_nL = torch.cat(
            [
                _losses(patches_nLD - added_nD[:, None], kind, held)
                for kind, added_nD in enumerate(added_nSD.unbind(dim=1))
            ],
            dim=-1,
        ).argmin(dim=-1)
        rest_nLD = patches_nLD - _middles(class_nL, added_nSD, held)
        kind_T = (class_nL // held.centre_SED.shape[1]).flatten()
        value_TK = times_matrix_of_kind(rest_nLD.flatten(0, 1), kind_T, held.basis_SKD[:-1].mT)
        bytes_TG = _nearest_levels(value_TK, held.spread_SK[kind_T], held)
        patches_nLG = bytes_TG.reshape(*class_nL.shape, bytes_TG.shape[1])
        patches_nLC = torch.cat([class_nL[..., None], patches_nLG], dim=-1).to(torch.uint8)
        codes_nNC = torch.cat([cls_nC[:, None], patches_nLC], dim=1)
        return Attempt(Encoded(codes_nNC, None), sound_nN.all(dim=-1))

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Decode CLS, and then all patches with it."""
        del scale_nN
        held = self._on(codes_nNC.device)
        flat_nNC = codes_nNC.flatten(0, -3)
        cls_nD = _decoded_cls(flat_nNC[:, 0], held)
        kinds, centres, width = held.centre_SED.shape
        patches_nLC = flat_nNC[:, 1:]
        # Of codes that were not made here, any byte is a class.
        class_nL = patches_nLC[..., 0].long().clamp(max=(kinds - 1) * centres - 1)
        middle_nLD = _middles(class_nL, _predictions(cls_nD, held), held)
        kind_T = (class_nL // centres).flatten()
        level_TK = _levels(patches_nLC.flatten(0, 1), kind_T, held)
        rest_TD = times_matrix_of_kind(level_TK, kind_T, held.basis_SKD[:-1])
        patches_nLD = middle_nLD + rest_TD.reshape(middle_nLD.shape)
        tokens_nND = torch.cat([cls_nD[:, None], patches_nLD], dim=1)
        return tokens_nND.reshape(*codes_nNC.shape[:-1], width)

    def _on(self, device: torch.device) -> _Held:
        if device not in self._by_device:
            self._by_device[device] = self._to_device(device)
        return self._by_device[device]

    def _to_device(self, device: torch.device) -> _Held:
        arrays, size = self.arrays, self.spec.token_bytes or 0
        tensors = {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
        groups = [np.flatnonzero(arrays["place"] == place) for place in range(1, size)]
        expected = expectation_of(arrays["spread"], BYTE * (size - 1))
        return _Held(
            centre_SED=tensors["centre"].float(),
            basis_SKD=tensors["basis"].float(),
            predict_SPD=tensors["predict"].float(),
            spread_SK=tensors["spread"],
            level_K256=tensors["level"],
            place_K=tensors["place"].long(),
            first_K=tensors["level"].shape[1] * torch.arange(len(arrays["place"]), device=device),
            groups=[torch.from_numpy(group).to(device) for group in groups],
            expected=Expectation(*(each.to(device) for each in expected)),
        )


def _losses(rest_xD: torch.Tensor, kind: int, held: _Held) -> torch.Tensor:
    """Return the `expected_losses` (x, E) of a kind."""
    kept_SK, floor_S = held.expected
    own = (each[kind] for each in (held.centre_SED, held.basis_SKD, kept_SK, floor_S))
    return expected_losses(rest_xD, *own)


def _coded_cls(cls_nD: torch.Tensor, held: _Held) -> torch.Tensor:
    """Return the codes (n, C) of CLS tokens."""
    centre_n = _losses(cls_nD, -1, held).argmin(dim=-1)
    value_nK = (cls_nD - held.centre_SED[-1][centre_n]) @ held.basis_SKD[-1].T
    bytes_nG = _nearest_levels(value_nK, held.spread_SK[-1].expand_as(value_nK), held)
    return torch.cat([centre_n[:, None], bytes_nG], dim=-1).to(torch.uint8)


def _decoded_cls(codes_nC: torch.Tensor, held: _Held) -> torch.Tensor:
    centre_n = codes_nC[:, 0].long() % held.centre_SED.shape[1]
    last_n = torch.full_like(centre_n, len(held.spread_SK) - 1)
    level_nK = _levels(codes_nC, last_n, held)
    return held.centre_SED[-1][centre_n] + level_nK @ held.basis_SKD[-1]


def _predictions(cls_nD: torch.Tensor, held: _Held) -> torch.Tensor:
    """Return what each kind of patch predicts (n, S, D) from decoded CLS tokens."""
    kinds, predicting, width = held.predict_SPD.shape
    cls_nP = cls_nD @ held.basis_SKD[-1, :predicting].T
    predict_PT = held.predict_SPD.transpose(0, 1).reshape(predicting, kinds * width)
    return (cls_nP @ predict_PT).reshape(len(cls_nD), kinds, width)


def _middles(class_nL: torch.Tensor, added_nSD: torch.Tensor, held: _Held) -> torch.Tensor:
    """Return the sum (n, L, D) of centre and prediction of patches of known classes."""
    kind_nL1 = (class_nL // held.centre_SED.shape[1])[..., None]
    added_nLD = added_nSD.gather(1, kind_nL1.expand(*class_nL.shape, added_nSD.shape[-1]))
    return held.centre_SED.flatten(0, 1)[class_nL] + added_nLD


def _levels(codes_TC: torch.Tensor, kind_T: torch.Tensor, held: _Held) -> torch.Tensor:
    """Return what each component (T, K) of tokens is coded as."""
    level_TK = held.level_K256.flatten()[codes_TC[:, held.place_K].long() + held.first_K]
    return level_TK * held.spread_SK[kind_T]


def _nearest_levels(value_TK: torch.Tensor, spread_TK: torch.Tensor, held: _Held) -> torch.Tensor:
    """Return the bytes (T, C - 1), int64, whose levels times spreads are nearest to values."""
    scaled_TK, weight_TK = value_TK * spread_TK, spread_TK.square()
    found = []
    for group in held.groups:
        level = held.level_K256[group]
        half_square_T256 = weight_TK[:, group] @ (level.square() / 2)
        found.append((half_square_T256 - scaled_TK[:, group] @ level).argmin(dim=-1))
    return torch.stack(found, dim=-1)
