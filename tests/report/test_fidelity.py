"""Bounds of a codec's loss hold, and are no wider than they must be."""

import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.report.fidelity import HALF_ULP


@pytest.mark.parametrize("name", HALF_ULP)
def test_rounding_changes_a_component_by_half_a_unit_at_most(name: str) -> None:
    exact = torch.linspace(1, 2, 2**14 + 1).view(1, 1, -1)
    codec = make_codec(name)
    rounded = codec.decode(*codec.encode(exact))
    worst = float(((rounded - exact).abs() / exact).max())
    assert 0.99 * HALF_ULP[name] < worst <= HALF_ULP[name]
