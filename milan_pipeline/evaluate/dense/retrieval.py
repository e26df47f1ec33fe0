"""Score frozen patch features: each pixel gets the class of its patch's neighbours in a memory.

Legend: B batch, S height and width of a view, G of the grid of patches, L = G² patches, E width, Y
classes, Q = B L patches.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Generator

import torch
from torch import Tensor
from torch.nn import functional as F

from milan_pipeline.core.device_copies import stacked
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.dense.memory import Memory, drawn_patches
from milan_pipeline.evaluate.dense.views import DenseView, ShowView, shares_of
from milan_pipeline.evaluate.segmentation.scoring import SegmentationScores, counts_between
from milan_pipeline.images.budget import BadImageBudget

KEPT = "no scores were written"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How patches are looked up, and with which resources.

    Attributes:
        classes: Y.
        neighbours: patches of the memory that vote.
        temperature: of the softmax over their cosines.
        memory: the most patches in the memory, at least as many as images; each gives as many.
        seed: of the draw of these patches.
        batch: images in a forward pass.
        workers: threads that decode.
        stop: checked before each batch.
    """

    classes: int
    neighbours: int
    temperature: float
    memory: int
    seed: int
    batch: int
    workers: int
    stop: StopRequest

    def remember(
        self, encoder: FrozenEncoder, table: LabelledTable, show: ShowView, budget: BadImageBudget
    ) -> Memory:
        """Encode labelled images, and keep some of their patches.

        Raises:
            DataError: more images cannot be decoded than the budget allows, a mask cannot be used,
                or no patch has a label.
            InterruptedRunError: a stop was asked for.
        """
        count = self.memory // table.samples
        features, shares = [], []
        with contextlib.closing(self._batches(table, show, budget, "remember patches")) as batches:
            for views in batches:
                patches_BLE = encoded_patches(encoder, views)
                labels_BSS = torch.stack([view.labels_SS for view in views])
                # On the host, where it takes no wait for the device to know how many are drawn.
                share_BLY = shares_of(labels_BSS, grid_of(patches_BLE, encoder), self.classes)
                taken = [
                    number * share_BLY.shape[1]
                    + drawn_patches(share_LY, count, view.key, self.seed)
                    for number, (view, share_LY) in enumerate(zip(views, share_BLY, strict=True))
                ]
                taken_M = torch.cat(taken)
                there_M = taken_M.to(encoder.device, non_blocking=True)
                features.append(F.normalize(patches_BLE.flatten(0, 1)[there_M], dim=-1))
                shares.append(share_BLY.flatten(0, 1)[taken_M])
        if not sum(map(len, features)):
            raise DataError(
                "no patch of the images to learn from has a label; give others, or another "
                "--ignore-index"
            )
        return Memory(torch.cat(features), torch.cat(shares).to(encoder.device))

    def score(
        self,
        memory: Memory,
        encoder: FrozenEncoder,
        table: LabelledTable,
        show: ShowView,
        budget: BadImageBudget,
    ) -> SegmentationScores:
        """Answer the class of each pixel of other images, and count what is right.

        Raises:
            DataError: as for `remember`; or no pixel has a label.
            InterruptedRunError: a stop was asked for.
        """
        counts: list[Tensor] = []
        scored: set[int] = set()
        with contextlib.closing(self._batches(table, show, budget, "look up patches")) as batches:
            for views in batches:
                patches_BLE = encoded_patches(encoder, views)
                labels_BSS = stacked([view.labels_SS for view in views], encoder.device)
                labels_BSS = labels_BSS.to(encoder.device, non_blocking=True)
                answers_BSS = self.answers(memory, patches_BLE, labels_BSS.shape[-1])
                counted_B3Y = counts_between(answers_BSS, labels_BSS.long(), self.classes)
                counts.append(counted_B3Y.cpu().int())
                scored.update(view.number for view in views)
        counts_N3Y = torch.cat([torch.zeros(0, 3, self.classes, dtype=torch.int32), *counts])
        if not counts_N3Y.any():
            raise DataError(
                "no pixel of the masks to score on has a label, all are ignored; give others, or "
                "another --ignore-index"
            )
        names = (name for at, name in enumerate(table.names()) if at in scored)
        return SegmentationScores(counts_N3Y.numpy(), len(scored), tuple(names))

    def answers(self, memory: Memory, patches_BLE: Tensor, size: int) -> Tensor:
        """Return the class of each pixel, int64 (B, S, S): shares are enlarged bilinearly.

        Args:
            memory: of patches on the same device.
            patches_BLE: features of the patches of views.
            size: S.
        """
        batch, patches, _ = patches_BLE.shape
        grid = math.isqrt(patches)
        share_QY = memory.shares(
            patches_BLE.flatten(0, 1), neighbours=self.neighbours, temperature=self.temperature
        )
        share_BYGG = share_QY.view(batch, grid, grid, self.classes).permute(0, 3, 1, 2)
        return F.interpolate(share_BYGG, (size, size), mode="bilinear").argmax(dim=1)

    def _batches(
        self, table: LabelledTable, show: ShowView, budget: BadImageBudget, what: str
    ) -> Generator[list[DenseView], None, None]:
        """Yield views in batches; images that cannot be decoded are counted and left out."""
        with (
            contextlib.closing(table.read(table.places())) as samples,
            contextlib.closing(
                ordered_map(show, samples, workers=self.workers, ahead=2 * self.batch)
            ) as shown,
            progress_bar(what, total=table.samples) as bar,
        ):
            while some := list(itertools.islice(shown, self.batch)):
                self.stop.raise_if_asked(KEPT)
                views = [each for each in some if isinstance(each, DenseView)]
                for row in (each for each in some if not isinstance(each, DenseView)):
                    budget.add(row["shard"], [row])
                if views:
                    yield views
                bar.update(len(some))


def encoded_patches(encoder: FrozenEncoder, views: list[DenseView]) -> Tensor:
    """Return the features of the patches of views (B, L, E)."""
    pixels_BCSS = stacked([view.pixels_CSS for view in views], encoder.device)
    return encoder.patches(pixels_BCSS.to(encoder.device, non_blocking=True))


def grid_of(patches_BLE: Tensor, encoder: FrozenEncoder) -> int:
    """Return G of a square grid of patches that covers the view.

    Raises:
        DataError: the grid is not square, or patches do not cover the view.
    """
    patches = patches_BLE.shape[1]
    grid = math.isqrt(patches)
    if grid**2 != patches or encoder.image_size != grid * encoder.stride:
        raise DataError(
            f"encoder {encoder.name!r} has {patches} patches of a view of {encoder.image_size} "
            "pixels; --dense needs a square grid whose patches cover the view"
        )
    return grid
