"""Score a segmenter: mIoU, mAcc and aAcc; each process scores its share of the images.

Legend: B batch, C channels, H height, N images, P pixels, W width, Y classes.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.func import functional_call

from milan_pipeline.cluster.world import World
from milan_pipeline.core.device_copies import stacked
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import NONE_READABLE, RunLedger, readable
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.accuracies import per_cent
from milan_pipeline.evaluate.images_to_score import ImagesToScore
from milan_pipeline.evaluate.per_image import COUNTS, NAMES, names_txt, npy
from milan_pipeline.evaluate.resampling import (
    RIGHT,
    TRUTH,
    Counts,
    ious,
    miou_interval,
    shares,
)
from milan_pipeline.evaluate.segmentation.inference import (
    Inference,
    InferenceConfig,
    PrepareImage,
    ScoredImage,
)
from milan_pipeline.evaluate.segmentation.masks import IGNORED, Labels
from milan_pipeline.evaluate.segmentation.model import Logits, Segmenter
from milan_pipeline.evaluate.segmentation.picture import draw_segmentations
from milan_pipeline.images.crops import Pixels
from milan_pipeline.training.partial_scores import PartialScores
from milan_pipeline.training.validation import evaluating


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """The labelled pixels of each class, image by image.

    Attributes:
        counts_N3Y: int32, of each image the pixels of each class that are right, those that are of
            it and those that were taken for it; zeros of images that cannot be decoded.
        images: number of scored images.
        names_N: of all images.
    """

    counts_N3Y: Counts
    images: int
    names_N: tuple[str, ...] = ()

    @functools.cached_property
    def totals(self) -> NDArray[np.int64]:
        """The counts of all images together, (3, Y)."""
        totals_3Y: NDArray[np.int64] = self.counts_N3Y.sum(axis=0, dtype=np.int64)
        return totals_3Y

    def ious(self) -> NDArray[np.float64]:
        """Return each class's intersection over union; NaN if neither truth nor answers have it."""
        return ious(self.totals)

    def accuracies(self) -> NDArray[np.float64]:
        """Return the share of each class's pixels that are right; NaN if it has no pixels."""
        right_Y, truth_Y = self.totals[RIGHT], self.totals[TRUTH]
        return shares(right_Y, truth_Y)

    def per_cent(self) -> dict[str, float]:
        """Return mIoU, mAcc and aAcc in per cent.

        As in mmsegmentation, means are over the classes that have a figure: one that is in neither
        truth nor answers has no IoU, and one that is not in the truth no accuracy.
        """
        right, total = int(self.totals[RIGHT].sum()), int(self.totals[TRUTH].sum())
        return {
            "miou": 100 * float(np.nanmean(self.ious())),
            "macc": 100 * float(np.nanmean(self.accuracies())),
            "aacc": per_cent(right, total),
        }

    def counts(self) -> dict[str, int]:
        """Return the counts that a record keeps."""
        return {"images": self.images}

    def notes(self) -> dict[str, Any]:
        """Return over how many classes mIoU is the mean, and the interval of mIoU."""
        found = miou_interval(self.counts_N3Y)
        return {
            "classes_in_mean": int(np.isfinite(self.ious()).sum()),
            "intervals": {} if found is None else {"miou": found},
        }

    def files(self) -> dict[str, bytes]:
        """Return the counts of each image and the images' names as files; see `per_image`."""
        return {COUNTS: npy(self.counts_N3Y), NAMES: names_txt(self.names_N)}


def score(
    inference: Inference, prepare: PrepareImage, images: ImagesToScore, *, classes: int
) -> SegmentationScores:
    """Score a segmenter on all images, together with the other processes.

    Args:
        inference: the segmenter, in evaluation mode.
        prepare: decodes and scales a sample.
        images: with masks; those of a batch have one size.
        classes: Y.

    Raises:
        DataError: a mask cannot be used, or more images than the ledger allows cannot be
            decoded, or none can be, or no pixel has a label.
        InterruptedRunError: a stop signal came to any process.
    """
    counts_N3Y = torch.zeros(images.table.samples, 3, classes, dtype=torch.float64)
    with contextlib.closing(images.batches(prepare, _alike, counts_N3Y)) as batches:
        for some in batches:
            counts_B3Y = counts_of(some, inference, classes)
            counts_N3Y[[each.number for each in some]] = counts_B3Y.double()
    scored = images.table.samples - images.ledger.count
    if not scored:
        raise DataError(NONE_READABLE)
    # Each image is counted by one process. float64 counts exactly up to 2^53 pixels.
    total_N3Y = images.world.total(counts_N3Y).round().to(torch.int32)
    if not total_N3Y.any():
        raise DataError(
            "no pixel of the masks to score on has a label, all are ignored; give others, or "
            "another --ignore-index"
        )
    return SegmentationScores(total_N3Y.numpy(), scored, tuple(images.table.names()))


def counts_of(some: list[ScoredImage], inference: Inference, classes: int) -> Tensor:
    """Return the counts of images of equal shapes, int64 (B, 3, Y) on the CPU."""
    answers_BHW = inference.labels(some)
    device = answers_BHW.device
    labels_BHW = stacked([each.labels_HW for each in some], device)
    labels_BHW = labels_BHW.to(device, non_blocking=True).long()
    return counts_between(answers_BHW, labels_BHW, classes).cpu()


def counts_between(answers_BHW: Tensor, labels_BHW: Tensor, classes: int) -> Tensor:
    """Count each image's pixels that are right, of each class, and taken for it; not ignored ones.

    No pixel is picked out: a GPU would have the host wait for their number.

    Args:
        answers_BHW: int64 classes.
        labels_BHW: int64 classes, or `IGNORED`.
        classes: Y.

    Returns:
        int64 (B, 3, Y), on the device of both.
    """
    labelled_BHW = labels_BHW != IGNORED
    right_BHW = labelled_BHW & (answers_BHW == labels_BHW)
    counts = []
    for classes_BHW, counted_BHW in (
        (labels_BHW, right_BHW),
        (labels_BHW, labelled_BHW),
        (answers_BHW, labelled_BHW),
    ):
        places_BP = torch.where(counted_BHW, classes_BHW, classes).flatten(1)
        counts_BY = places_BP.new_zeros(len(places_BP), classes + 1)
        counts.append(counts_BY.scatter_add_(1, places_BP, torch.ones_like(places_BP)))
    return torch.stack(counts, dim=1)[..., :classes]


def _alike(shown: Iterator[ScoredImage], size: int) -> Iterator[list[ScoredImage]]:
    """Yield images of equal shapes together, at most `size`, in order."""
    for _, group in itertools.groupby(shown, key=lambda each: each.shapes):
        while some := list(itertools.islice(group, size)):
            yield some


PICTURE, PICTURED = "examples.png", 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationEvaluationConfig:
    """How a segmenter is scored.

    Attributes:
        inference: how an image is labelled.
        mean: of the pixels, in [0, 1].
        std: of the pixels, in [0, 1].
        classes: Y.
        threads: number of threads that decode.
        bf16: compute under bfloat16 autocast, as training does.
    """

    inference: InferenceConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    threads: int
    bf16: bool


class SegmentationEvaluator:
    """Score a segmenter on all validation images that can be decoded, and draw the first few.

    A `validation.Evaluator`.

    Args:
        model: on its device.
        table: the validation images and masks.
        ledger: the validation images that cannot be decoded.
        labels: decodes masks.
        config: how the images are scored.
    """

    key = "miou"
    columns: Mapping[str, str] = {"miou": "mIoU %", "macc": "mAcc %", "aacc": "aAcc %"}

    def __init__(
        self,
        model: Segmenter,
        table: LabelledTable,
        ledger: RunLedger,
        labels: Labels,
        config: SegmentationEvaluationConfig,
    ) -> None:
        self._model = model
        self._table = table
        self.ledger = ledger
        self._config = config
        self._prepare = PrepareImage(config.inference, labels)
        self._device = next(model.parameters()).device
        self._pixels = Pixels(config.mean, config.std, self._device)

    def score(
        self,
        world: World,
        stop: StopRequest,
        weights: Mapping[str, Tensor] | None = None,
        *,
        partial: PartialScores | None = None,
    ) -> SegmentationScores:
        """Score the model; see `validation.Evaluator`."""
        with evaluating(self._model):
            images = ImagesToScore(
                table=self._table,
                ledger=self.ledger,
                batch=self._config.inference.batch,
                threads=self._config.threads,
                world=world,
                stop=stop,
                partial=partial,
            )
            inference, classes = self._inference(weights), self._config.classes
            return score(inference, self._prepare, images, classes=classes)

    def pictures(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, bytes]:
        """Draw the first images, their masks and the model's answers: `examples.png`."""
        show = self.ledger.noting(self._prepare)
        with contextlib.closing(self._table.read(self._table.places())) as samples:
            scored = list(itertools.islice(readable(map(show, samples)), PICTURED))
        with evaluating(self._model):
            inference = self._inference(weights)
            answers = [inference.labels([each])[0].byte().cpu().numpy() for each in scored]
        truths = [each.labels_HW.numpy() for each in scored]
        images = []
        for each, truth_HW in zip(scored, truths, strict=True):
            image = Image.fromarray(each.scaled_Chw[0].permute(1, 2, 0).numpy())
            images.append(np.asarray(image.resize(truth_HW.shape[::-1])).transpose(2, 0, 1))
        png = draw_segmentations(images, truths, answers, classes=self._config.classes)
        return {PICTURE: png}

    def _inference(self, weights: Mapping[str, Tensor] | None) -> Inference:
        given = {} if weights is None else dict(weights)

        def logits_of(images_BCHW: Tensor) -> Tensor:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bf16):
                logits: Logits = functional_call(self._model, given, (images_BCHW,))
            return logits.main_BYHW

        return Inference(logits_of, self._pixels, self._config.inference)
