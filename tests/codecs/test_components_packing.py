"""Indices to bits and back: for any layout, as numpy packs them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.codecs.components import IndexPacking

CPU = torch.device("cpu")


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), min_size=1), st.integers(0, 99))
def test_round_trip(fields: list[tuple[int, int]], seed: int) -> None:
    """Fields of 1 to 8 bits, each after a gap of up to 3 unused ones."""
    bits_G = np.array([bits for bits, _ in fields])
    ends_G = np.cumsum([bits + gap for bits, gap in fields])
    start_G = ends_G - bits_G
    size = -(-int(ends_G[-1]) // 8)
    packing = IndexPacking(start_G, bits_G, size, CPU)
    index_TG = np.random.default_rng(seed).integers(0, 1 << bits_G, (5, len(bits_G)))
    codes = packing.pack(torch.from_numpy(index_TG))
    assert codes.shape == (5, size)
    assert np.array_equal(packing.unpack(codes).numpy(), index_TG)
    expected = np.zeros((5, 8 * size), np.uint8)
    for group, (start, bits) in enumerate(zip(start_G, bits_G, strict=True)):
        for bit in range(bits):
            expected[:, start + bit] = (index_TG[:, group] >> bit) & 1
    assert np.array_equal(codes.numpy(), np.packbits(expected, axis=1, bitorder="little"))


def test_whole_bytes_are_the_indices_themselves() -> None:
    packing = IndexPacking(np.arange(3) * 8, np.full(3, 8), 3, CPU)
    index_TG = torch.tensor([[0, 255, 7], [9, 1, 128]])
    assert packing.pack(index_TG).tolist() == index_TG.tolist()
    assert packing.unpack(packing.pack(index_TG)).tolist() == index_TG.tolist()
