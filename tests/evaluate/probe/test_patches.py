"""Patch features: kept in memory or encoded each time, and which images they are of."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import decoded_image, open_labelled
from milan_pipeline.encoders.frozen import PixelEncoder
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.evaluation_view import evaluation_view
from milan_pipeline.evaluate.probe.patches import PatchSource
from milan_pipeline.images.budget import LedgerRow

SIZE = 16  # four patches of 3 x 8 x 8 numbers


class Counting(PixelEncoder):
    """Counts the views that it encodes."""

    encoded = 0
    scale = 1.0

    def patches(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        self.encoded += len(pixels_BCHW)
        return self.scale * super().patches(pixels_BCHW)


Make = Callable[..., tuple[PatchSource, Counting]]


@pytest.fixture
def make(image_shards: Path) -> Make:
    def source(
        memory: float = 1e9, bad: tuple[LedgerRow, ...] = ()
    ) -> tuple[PatchSource, Counting]:
        encoder = Counting(SIZE)
        found = PatchSource(
            table=open_labelled(str(image_shards), kind="class"),
            bad=bad,
            encoder=lambda: encoder,
            crop_pct=0.5,
            batch_size=4,
            workers=0,
            memory=memory,
            stop=StopRequest(),
            what="patches",
        )
        return found, encoder

    return source


def orders() -> list[torch.Tensor]:
    return [torch.tensor([5, 2, 11, 7, 3]), torch.tensor([2, 20])]


def test_kept_and_encoded_each_time_are_the_same(make: Make) -> None:
    kept, once = make()
    streamed, often = make(memory=100)
    assert (kept.is_kept, streamed.is_kept) == (True, False)
    for _ in range(2):
        for ours, theirs in zip(kept.batches(orders), streamed.batches(orders), strict=True):
            torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=0)
            assert ours[1].tolist() == theirs[1].tolist()
    assert once.encoded == 1 + len(kept.places)  # and the black image that tells the shape
    assert often.encoded == 1 + 2 * 7


def test_features_are_those_of_the_evaluation_view(make: Make) -> None:
    source, encoder = make()
    (sample,) = source.table.read(iter(source.places[5:6]))
    view = evaluation_view(SIZE, 0.5)(decoded_image(sample))
    with contextlib.closing(source.batches(orders)) as batches:
        patches_BLE, _ = next(batches)
    assert patches_BLE.shape == (5, 4, 192)
    torch.testing.assert_close(patches_BLE[0], encoder.patches(view[None])[0].half().float())


def test_images_that_cannot_be_decoded_are_left_out(make: Make) -> None:
    whole, _ = make()
    place = whole.places[3]
    part = whole.table.parts[place.shard]
    bad = LedgerRow(shard=Path(part.url).name, key=part.key(place.row), reason="torn")
    source, _ = make(bad=(bad,))
    assert source.places == whole.places[:3] + whole.places[4:]
    np.testing.assert_array_equal(source.labels, np.delete(whole.labels, 3))


def test_features_that_are_no_numbers_are_refused(make: Make) -> None:
    source, encoder = make()
    encoder.scale = 1e9
    with pytest.raises(DataError, match="infinite or NaN features"):
        next(source.batches(orders))
