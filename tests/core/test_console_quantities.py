"""Sizes in words, and names with their values."""

import pytest

from milan_pipeline.core.console import bytes_text, named_lines, short_bytes


@pytest.mark.parametrize(
    ("size", "short"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1_312_345_678, "1.31 GB"),
        (999_999, "1 MB"), (64_600_000_000, "64.6 GB"), (258_000_000_000, "258 GB"),
        (5_000_000_000_000_000_000, "5000 PB"),
    ],
)  # fmt: skip
def test_short_sizes(size: int, short: str) -> None:
    assert short_bytes(size) == short


def test_exact_sizes() -> None:
    assert bytes_text(512) == "512"
    assert bytes_text(1_312_345_678) == "1312345678 (1.31 GB)"


def test_values_stand_below_each_other_and_empty_ones_are_left_out() -> None:
    pairs = [("a", "1"), ("longer", "2"), ("none", "")]
    assert named_lines(pairs) == ["a       1", "longer  2"]
    assert named_lines(pairs[:1], width=4) == ["a     1"]
