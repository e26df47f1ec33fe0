"""Examine a classifier: what its scores are, or would be with other weights.

Legend: B batch, C channels, H height, W width, Y classes.
"""

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call

from milan_pipeline.classification_scores import Scores, score
from milan_pipeline.classification_task import Pixels
from milan_pipeline.classification_views import EvaluationViews, ViewConfig
from milan_pipeline.classifier_files import Description
from milan_pipeline.distributed import World
from milan_pipeline.exams import evaluating
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.run_ledger import RunLedger


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """How a classifier is examined.

    Attributes:
        batch: images in a forward pass.
        threads: that decode.
        bf16: compute under bfloat16 autocast, as training does.
    """

    batch: int
    threads: int
    bf16: bool


class Examiner:
    """Score a classifier on all validation images that can be decoded.

    Args:
        model: on its device.
        description: what it is given.
        table: the validation images.
        ledger: of them.
        config: how.
    """

    def __init__(
        self,
        model: nn.Module,
        description: Description,
        table: LabelledTable,
        ledger: RunLedger,
        config: ExamConfig,
    ) -> None:
        self._model = model
        self._table = table
        self._ledger = ledger
        self._config = config
        shown = ViewConfig(
            image_size=description.image_size,
            mean=description.mean,
            augment="",
            crop_pct=description.crop_pct,
            seed=0,
        )
        self._views = EvaluationViews(shown)
        device = next(model.parameters()).device
        self._pixels = Pixels(description.mean, description.std, device)

    def score(self, world: World, weights: Mapping[str, Tensor] | None = None) -> Scores:
        """Score the model, or what it would be with other weights; all of `world` must come."""
        given = {} if weights is None else dict(weights)

        def classify(images_BCHW: Tensor) -> Tensor:
            logits_BY: Tensor = functional_call(self._model, given, (images_BCHW,))
            return logits_BY

        with evaluating(self._model):
            return score(
                classify,
                self._table,
                self._views,
                self._pixels,
                batch=self._config.batch,
                threads=self._config.threads,
                ledger=self._ledger,
                bf16=self._config.bf16,
                world=world,
            )
