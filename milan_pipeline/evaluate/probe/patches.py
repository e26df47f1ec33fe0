"""Patch features of labelled images: kept in memory if they fit, else encoded each time.

Either way they are rounded to float16, so that what is trained on them is the same but for the last
bits: those depend on which images are encoded together.

Legend: N images, B images of a batch, L patches, E width, C channels, S side of a view.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable, decoded_image
from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.evaluation_view import evaluation_view
from milan_pipeline.evaluate.probe.features import Labels
from milan_pipeline.images.budget import LedgerRow
from milan_pipeline.shards.random_access import Place

BYTES = 2  # of float16
KEPT = "no scores were written"


class Patches(Protocol):
    """Patch features of labelled images.

    Attributes:
        labels: class numbers, int64 (N,).
        shape: L and E.
        device: of the features.
    """

    @property
    def labels(self) -> Labels:
        """See the class."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """See the class."""
        ...

    @property
    def device(self) -> torch.device:
        """See the class."""
        ...

    def batches(
        self, rows: Callable[[], Iterable[Tensor]]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield the features of batches of images, float32 (B, L, E) on `device`, and their rows.

        Args:
            rows: returns places among the images, a batch at a time; the same at each call, as
                images are decoded ahead of the batch that is encoded.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchSource:
    """The patches of the evaluation views of images that can be decoded, as `Patches`.

    Attributes:
        table: the images.
        bad: those of them that cannot be decoded, which are left out.
        encoder: loads what encodes them.
        crop_pct: of the evaluation view; see `evaluation_view`.
        batch_size: images in a forward pass.
        workers: threads that decode.
        memory: the most bytes that features may take to be kept.
        stop: checked before each batch.
        what: shown beside the progress bar.
    """

    table: LabelledTable
    bad: Iterable[LedgerRow]
    encoder: Callable[[], FrozenEncoder]
    crop_pct: float
    batch_size: int
    workers: int
    memory: float
    stop: StopRequest
    what: str

    @functools.cached_property
    def places(self) -> list[Place]:
        """The places of the images, in the table's order."""
        unreadable = {(row["shard"], row["key"]) for row in self.bad}
        return [
            place
            for place in self.table.places()
            if not unreadable or self._name_of(place) not in unreadable
        ]

    @functools.cached_property
    def labels(self) -> Labels:
        """The class numbers of these images."""
        labels = [self.table.parts[place.shard].labels[place.row] for place in self.places]
        return np.array(labels, dtype=np.int64)

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.encoder().device

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        """L and E."""
        encoder = self.encoder()
        size = encoder.image_size
        black_1CSS = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        _, patches, width = encoder.patches(black_1CSS).shape
        return patches, width

    @property
    def is_kept(self) -> bool:
        """Whether the features of all images fit into `memory`."""
        return self.feature_bytes <= self.memory

    @property
    def feature_bytes(self) -> int:
        """What the features of all images take."""
        patches, width = self.shape
        return len(self.places) * patches * width * BYTES

    def batches(
        self, rows: Callable[[], Iterable[Tensor]]
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield the features of batches of images; see `Patches.batches`.

        Raises:
            DataError: a feature is not finite.
            InterruptedRunError: a stop was asked for.
        """
        if self.is_kept:
            for rows_B in rows():
                self.stop.raise_if_asked(KEPT)
                patches_BLE = self._kept[rows_B].to(self.device)
                yield patches_BLE.float(), rows_B
            return
        images = (row for rows_B in rows() for row in rows_B)
        with contextlib.closing(self._views(images)) as views:
            for rows_B in rows():
                yield self._encoded(views, len(rows_B)).float(), rows_B

    @functools.cached_property
    def _kept(self) -> Tensor:
        """The features of all images, float16 in memory."""
        images = len(self.places)
        kept_NLE = torch.empty(images, *self.shape, dtype=torch.float16)
        with (
            contextlib.closing(self._views(range(images))) as views,
            progress_bar(self.what, total=images) as bar,
        ):
            for start in range(0, images, self.batch_size):
                part_NLE = kept_NLE[start : start + self.batch_size]
                part_NLE.copy_(self._encoded(views, len(part_NLE)))
                bar.update(len(part_NLE))
        return kept_NLE

    def _encoded(self, views: Iterator[Tensor], count: int) -> Tensor:
        """Encode the next views: float16 (B, L, E) on `device`."""
        self.stop.raise_if_asked(KEPT)
        encoder, parts = self.encoder(), []
        for start in range(0, count, self.batch_size):
            some = list(itertools.islice(views, min(self.batch_size, count - start)))
            parts.append(encoder.patches(torch.stack(some)).half())
        patches_BLE = torch.cat(parts)
        if not patches_BLE.isfinite().all():
            raise DataError(
                f"encoder {encoder.name!r} gives infinite or NaN features, or such as float16 "
                "cannot hold; leave --attentive out"
            )
        return patches_BLE

    def _views(self, rows: Iterable[Tensor | int]) -> Generator[Tensor, None, None]:
        """Yield the views of images, uint8 (C, S, S)."""
        view = evaluation_view(self.encoder().image_size, self.crop_pct)
        places = (self.places[int(row)] for row in rows)
        with (
            contextlib.closing(self.table.read(places)) as samples,
            contextlib.closing(
                ordered_map(
                    lambda sample: view(decoded_image(sample)),
                    samples,
                    workers=self.workers,
                    ahead=2 * self.batch_size,
                )
            ) as shown,
        ):
            yield from shown

    def _name_of(self, place: Place) -> tuple[str, str]:
        part = self.table.parts[place.shard]
        return storage.basename(part.url), part.key(place.row)
