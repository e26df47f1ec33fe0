"""Examine a segmenter: what its scores are, or would be with other weights, and how it looks.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.func import functional_call

from milan_pipeline.classification_scores import readable
from milan_pipeline.classification_task import Pixels
from milan_pipeline.distributed import World
from milan_pipeline.exams import evaluating
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.run_ledger import RunLedger
from milan_pipeline.segmentation_inference import Exhibits, Inference, InferenceConfig
from milan_pipeline.segmentation_masks import Labels
from milan_pipeline.segmentation_model import Logits, Segmenter
from milan_pipeline.segmentation_picture import draw_segmentations
from milan_pipeline.segmentation_scores import SegmentationScores, score

PICTURED = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationExamConfig:
    """How a segmenter is examined.

    Attributes:
        inference: how it looks at an image.
        mean: of the pixels, in [0, 1].
        std: likewise.
        classes: Y.
        threads: that decode.
        bf16: compute under bfloat16 autocast, as training does.
    """

    inference: InferenceConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    threads: int
    bf16: bool


class SegmentationExaminer:
    """Score a segmenter on all validation images that can be decoded, and draw the first few.

    Args:
        model: on its device.
        table: of the validation images and masks.
        ledger: of them.
        labels: decodes masks.
        config: how.
    """

    def __init__(
        self,
        model: Segmenter,
        table: LabelledTable,
        ledger: RunLedger,
        labels: Labels,
        config: SegmentationExamConfig,
    ) -> None:
        self._model = model
        self._table = table
        self._ledger = ledger
        self._config = config
        self._exhibits = Exhibits(config.inference, labels)
        self._device = next(model.parameters()).device
        self._pixels = Pixels(config.mean, config.std, self._device)

    def score(
        self, world: World, weights: Mapping[str, Tensor] | None = None
    ) -> SegmentationScores:
        """Score the model, or what it would be with other weights, with the other processes."""
        with evaluating(self._model):
            return score(
                self._inference(weights),
                self._exhibits,
                self._table,
                classes=self._config.classes,
                batch=self._config.inference.batch,
                threads=self._config.threads,
                ledger=self._ledger,
                world=world,
            )

    def draw(self, weights: Mapping[str, Tensor] | None = None) -> bytes:
        """Draw the first images, their masks and the model's answers, as a PNG."""
        show = self._ledger.noting(self._exhibits)
        with contextlib.closing(self._table.read(self._table.places())) as samples:
            exhibits = list(itertools.islice(readable(map(show, samples)), PICTURED))
        with evaluating(self._model):
            inference = self._inference(weights)
            answers = [inference.labels([exhibit])[0].byte().cpu().numpy() for exhibit in exhibits]
        truths = [exhibit.labels_HW.numpy() for exhibit in exhibits]
        images = []
        for exhibit, truth_HW in zip(exhibits, truths, strict=True):
            image = Image.fromarray(exhibit.scaled_Chw[0].permute(1, 2, 0).numpy())
            images.append(np.asarray(image.resize(truth_HW.shape[::-1])).transpose(2, 0, 1))
        return draw_segmentations(images, truths, answers, classes=self._config.classes)

    def _inference(self, weights: Mapping[str, Tensor] | None) -> Inference:
        given = {} if weights is None else dict(weights)

        def logits_of(images_BCHW: Tensor) -> Tensor:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bf16):
                logits: Logits = functional_call(self._model, given, (images_BCHW,))
            return logits.main_BYHW

        return Inference(logits_of, self._pixels, self._config.inference)
