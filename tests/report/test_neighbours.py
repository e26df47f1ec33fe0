"""Features for the page: cosines nearly those of the targets, and the loss that is told is real."""

import base64

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.spectrum import directions
from milan_pipeline.report.neighbours import AXES, find_neighbours


def cosines_of(found, count):
    """Compute as page.js does."""
    codes = np.frombuffer(base64.b64decode(found.features), np.uint8).reshape(count, -1)
    values = np.array(found.low) + codes * np.array(found.step)
    product = values @ values.T
    norm = np.sqrt(np.diag(product))
    return product / norm[:, None] / norm


@pytest.mark.parametrize("width", [6, 200])
def test_cosines_are_kept_and_their_loss_is_told(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scale = 1 / torch.arange(1, width + 1)
    patches_nLD = torch.randn(5, 9, width, generator=generator) * scale + 0.5
    found = find_neighbours(patches_nLD, seed=0)
    assert len(found.step) == min(AXES, width)
    full = directions(patches_nLD.flatten(0, 1))
    lost = np.abs(cosines_of(found, 45) - (full @ full.T).numpy()).mean()
    assert lost < 0.01
    assert found.error < 0.01
    assert found.agreement > 0.8


def test_the_told_loss_grows_with_what_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = find_neighbours(torch.randn(5, 9, 400, generator=generator), seed=0)
    steep = find_neighbours(torch.randn(5, 9, 400, generator=generator) ** 9, seed=0)
    assert flat.error < 0.1
    alone = find_neighbours(torch.randn(1, 9, 8, generator=generator), seed=0)
    assert alone.agreement == 1
    assert steep.features != flat.features
