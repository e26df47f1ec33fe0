"""The codec without a fit: a fixed rotation, and 1 to 4 bits for each rotated component.

After a random rotation, each component of a direction is nearly a Gaussian of variance 1/D,
whatever the targets are. So one quantiser that is optimal for Gaussians (Lloyd and Max) serves all
of them. The method is that of TurboQuant (arXiv 2504.19874) for mean squared error. The rotation is
a product of random signs and Hadamard transforms.

The codes of a token are the same on every machine and with any number of threads: encoding consists
of operations on single components, whose order is fixed.

Legend: n samples, N and T tokens, D target width, P largest power of two up to D, R rounds, G
groups of eight components, b bits of a component, C = b G bytes a token, V levels; x stands for any
leading shape.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch

from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.codecs.registry import CodecSpec

ROUNDS = 4
SEED = b"milan-pipeline rotation 1"
GROUP = 8
"""Components that share bytes: eight of b bits take b bytes."""
POSITIVE_LEVELS = {
    1: (0.797885,),
    2: (0.452780, 1.510418),
    3: (0.245094, 0.756005, 1.343909, 2.151946),
    4: (0.128395, 0.388048, 0.656759, 0.942340, 1.256231, 1.618046, 2.069017, 2.732590),
}
"""The positive half of the best levels for a Gaussian of variance 1, by bits.

(J. Max, Quantizing for minimum distortion, 1960, table I; here with six digits.)"""
BLOCK = 64
"""Tokens that are encoded at a time on the CPU: their components stay in its caches."""


class _Tables(NamedTuple):
    """What a width needs on one device: `level_V` and `border` hold for components of tokens."""

    sign_RD: torch.Tensor
    border: torch.Tensor
    level_V: torch.Tensor
    inverse_DD: torch.Tensor


class Rotation(Codec):
    """Directions, rotated and quantised component by component."""

    def __init__(self, spec: CodecSpec) -> None:
        """Take a codec with its bits.

        Args:
            spec: this codec.
        """
        self.spec = spec
        assert spec.bits is not None  # noqa: S101 - parse_codec and spec_of give it
        self._bits = spec.bits
        self._by_place: dict[tuple[int, torch.device], _Tables] = {}

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        """Encode directions; a token of length zero gets the codes of an arbitrary direction."""
        sound_nN = tokens_nND.isfinite().all(dim=-1)
        tokens_TD = tokens_nND.masked_fill(~sound_nN[..., None], 0).flatten(0, -2).float()
        size = BLOCK if tokens_TD.device.type == "cpu" else max(1, len(tokens_TD))
        codes_TC = torch.cat([self._encoded(part) for part in torch.split(tokens_TD, size)])
        codes_nNC = codes_TC.reshape(*tokens_nND.shape[:-1], codes_TC.shape[-1])
        return Attempt(Encoded(codes_nNC, None), sound_nN.all(dim=-1))

    def _encoded(self, tokens_TD: torch.Tensor) -> torch.Tensor:
        tables = self._tables(tokens_TD.shape[-1], tokens_TD.device)
        rotated_DT = rotated(unit_length(tokens_TD).T.contiguous(), tables.sign_RD)
        index_DT = torch.bucketize(rotated_DT, tables.border, out_int32=True)
        return packed(index_DT.T, self._bits)

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        """Look up the levels, and rotate them back."""
        del scale_nN
        index_xD = unpacked(codes_nNC, self._bits)
        tables = self._tables(index_xD.shape[-1], codes_nNC.device)
        return tables.level_V[index_xD] @ tables.inverse_DD

    def _tables(self, width: int, device: torch.device) -> _Tables:
        if (width, device) not in self._by_place:
            positive = POSITIVE_LEVELS[self._bits]
            level_V = torch.tensor([-value for value in reversed(positive)] + list(positive))
            level_V /= math.sqrt(width)
            border, sign_RD = (level_V[1:] + level_V[:-1]) / 2, signs(width)
            unit_DD = torch.eye(width, dtype=torch.float64)
            # Column i is the rotated unit vector i, so the matrix rotates row vectors back.
            inverse_DD = rotated(unit_DD, sign_RD).to(torch.float32)
            tables = (sign_RD, border, level_V, inverse_DD)
            self._by_place[width, device] = _Tables(*(each.to(device) for each in tables))
        return self._by_place[width, device]


def unit_length(tokens_TD: torch.Tensor) -> torch.Tensor:
    """Scale float32 tokens to length 1; zero stays zero.

    Squares are added by folding a token in halves, as a sum over a dimension would depend on the
    processor.
    """
    largest_T1 = tokens_TD.abs().amax(dim=-1, keepdim=True)
    scaled_TD = tokens_TD / largest_T1.masked_fill(largest_T1 == 0, 1)
    width = tokens_TD.shape[-1]
    sum_TP = torch.nn.functional.pad(scaled_TD.square(), (0, _power_up_to(2 * width - 1) - width))
    while sum_TP.shape[-1] > 1:
        left_TP, right_TP = sum_TP.chunk(2, dim=-1)
        sum_TP = left_TP + right_TP
    return scaled_TD / sum_TP.masked_fill(sum_TP == 0, 1).sqrt()


def rotated(tokens_DT: torch.Tensor, sign_RD: torch.Tensor) -> torch.Tensor:
    """Rotate tokens, components first.

    Each round flips signs, then mixes the first P components, or the last P in every second round.
    """
    width = len(tokens_DT)
    size = _power_up_to(width)
    rotated_DT = tokens_DT.clone()
    for number, sign_D in enumerate(sign_RD):
        rotated_DT *= sign_D[:, None]
        first = (width - size) * (number % 2)
        rotated_DT[first : first + size] = hadamard(rotated_DT[first : first + size])
    return rotated_DT


def hadamard(tokens_PT: torch.Tensor) -> torch.Tensor:
    """Apply the orthonormal Hadamard transform to the P components of tokens, components first."""
    size, count = tokens_PT.shape
    source_PT, target_PT = tokens_PT, torch.empty_like(tokens_PT)
    half = 1
    while half < size:
        pairs = source_PT.view(size // (2 * half), 2, half, count)
        sums = target_PT.view(pairs.shape)
        torch.add(pairs[:, 0], pairs[:, 1], out=sums[:, 0])
        torch.sub(pairs[:, 0], pairs[:, 1], out=sums[:, 1])
        # The tokens given stay as they are.
        spare_PT = torch.empty_like(tokens_PT) if source_PT is tokens_PT else source_PT
        source_PT, target_PT = target_PT, spare_PT
        half *= 2
    return source_PT * (1 / math.sqrt(size))


def packed(index_TD: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack indices of b bits, from low to high bits; return uint8 codes (T, C)."""
    index_TG8 = index_TD.reshape(len(index_TD), index_TD.shape[-1] // GROUP, GROUP).long()
    shift_8 = torch.arange(GROUP, device=index_TD.device) * bits
    shift_b = torch.arange(bits, device=index_TD.device) * 8
    word_TG = torch.bitwise_left_shift(index_TG8, shift_8).sum(dim=-1)
    byte_TGb = torch.bitwise_right_shift(word_TG[..., None], shift_b)
    return (byte_TGb & 0xFF).to(torch.uint8).flatten(-2)


def unpacked(codes_xC: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the indices (x, D) of codes as int64."""
    lead, size = codes_xC.shape[:-1], codes_xC.shape[-1]
    byte_xGb = codes_xC.reshape(*lead, size // bits, bits).long()
    shift_8 = torch.arange(GROUP, device=codes_xC.device) * bits
    shift_b = torch.arange(bits, device=codes_xC.device) * 8
    word_xG = torch.bitwise_left_shift(byte_xGb, shift_b).sum(dim=-1)
    index_xG8: torch.Tensor = torch.bitwise_right_shift(word_xG[..., None], shift_8) % 2**bits
    return index_xG8.flatten(-2)


def _power_up_to(width: int) -> int:
    """The largest power of two up to a width."""
    return 1 << (width.bit_length() - 1)


def signs(width: int) -> torch.Tensor:
    """Return the signs (R, D) of a width, float32: bits of the hashed seed, low ones first."""
    drawn = hashlib.shake_256(SEED).digest(-(-ROUNDS * width // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=ROUNDS * width, bitorder="little")
    return torch.from_numpy(1 - 2 * bits.astype(np.float32)).reshape(ROUNDS, width)
