"""Indices of a few bits each, packed into a token's bytes from low to high.

Legend: n samples, N and T tokens, C bytes a token, P = 8 C bits, G indices.
"""

import numpy as np
import torch
from numpy.typing import NDArray

BYTE = 8


class IndexPacking:
    """Where each index of a token lies, on one device."""

    def __init__(
        self, start_G: NDArray[np.int64], bits_G: NDArray[np.int64], size: int, device: torch.device
    ) -> None:
        """Take a layout.

        Args:
            start_G: bit at which each index begins, ascending.
            bits_G: of each index, 1 to 8.
            size: C.
            device: of the codes.
        """
        whole = np.arange(size) * BYTE
        self._is_bytes = np.array_equal(start_G, whole) and bool((bits_G == BYTE).all())
        first_G = start_G // BYTE
        self._first_G = torch.from_numpy(first_G).to(device)
        # The last byte has none after it; what it reads in place of that is masked away.
        self._second_G = torch.from_numpy(np.minimum(first_G + 1, size - 1)).to(device)
        self._shift_G = torch.from_numpy((start_G % BYTE).astype(np.int32)).to(device)
        self._mask_G = torch.from_numpy(((1 << bits_G) - 1).astype(np.int32)).to(device)
        # For each bit, the index that it is of, and which bit of that; unused ones are of one more.
        owner_P = np.full(BYTE * size, len(start_G))
        shift_P = np.zeros(BYTE * size, np.int64)
        for number, (start, bits) in enumerate(zip(start_G, bits_G, strict=True)):
            owner_P[start : start + bits] = number
            shift_P[start : start + bits] = np.arange(bits)
        self._owner_P = torch.from_numpy(owner_P).to(device)
        self._shift_P = torch.from_numpy(shift_P).to(device)
        self._value_8 = (2 ** torch.arange(BYTE)).to(device)

    def pack(self, index_TG: torch.Tensor) -> torch.Tensor:
        """Return uint8 codes (T, C) of int64 indices."""
        if self._is_bytes:
            return index_TG.to(torch.uint8)
        padded = torch.nn.functional.pad(index_TG, (0, 1))
        bit_TP = (padded[:, self._owner_P] >> self._shift_P) & 1
        value_TC8 = bit_TP.reshape(len(bit_TP), len(self._owner_P) // BYTE, BYTE) * self._value_8
        return value_TC8.sum(dim=-1).to(torch.uint8)

    def unpack(self, codes_nNC: torch.Tensor) -> torch.Tensor:
        """Return int32 indices (n, N, G) of uint8 codes."""
        codes_nNC = codes_nNC.to(torch.int32)
        if self._is_bytes:
            return codes_nNC
        window_nNG = codes_nNC[..., self._first_G] | codes_nNC[..., self._second_G] << BYTE
        return (window_nNG >> self._shift_G) & self._mask_G
