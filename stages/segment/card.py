"""The card of what `segment` measures: see `evaluate.dense_protocol`."""

from typing import Any

from milan_pipeline.evaluate.dense_protocol import PROTOCOL, DenseProtocol, ignored_values
from milan_pipeline.evaluate.segmentation.inference import InferenceConfig
from milan_pipeline.evaluate.segmentation.model import HeadSpec
from milan_pipeline.stages.segment.command import Segment

METHODS = {
    "linear": "linear: BatchNorm and a 1x1 convolution, as DINOv2 has it (arXiv 2304.07193)",
    "upernet": "UPerNet (arXiv 1807.10221)",
}
FEATURES = {
    "linear": "patches after the last norm",
    "upernet": "patches of four blocks, not normed",
}
TRAINED_BY = (
    *("batch_size", "base_lr", "min_lr", "weight_decay", "layer_decay", "drop_path", "schedule"),
    *("least_scale", "most_scale", "max_class_share", "photometric", "label_fraction"),
)
"""Options of the training that the card repeats."""


def card_of_segmenter(
    config: Segment,
    spec: HeadSpec,
    inference: InferenceConfig,
    *,
    steps: int | None = None,
    warmup_steps: int | None = None,
) -> dict[str, Any]:
    """Return the card, as `protocol`.

    Args:
        config: the settled options.
        spec: of the head.
        inference: how images are answered.
        steps: of the training; None if it was another run's, of which little is known.
        warmup_steps: of them.
    """
    scale, window = inference.scale, inference.window
    longest = f", long side at most {scale.long_side}" if scale.long_side else ""
    known = steps is not None
    training = {"steps": steps, "warmup_steps": warmup_steps, "views": config.image_size}
    training |= {name: getattr(config, name) for name in TRAINED_BY}
    card = DenseProtocol(
        method=METHODS[spec.head],
        encoder=("frozen" if config.freeze else "trained") if known else None,
        features=FEATURES[spec.head],
        resolution=f"short side {scale.short_side} pixels{longest}",
        aspect_ratio="kept",
        crop="none" if window is None else f"windows of {window} x {window} pixels",
        stride=None if window is None else inference.stride,
        scales=list(inference.factors),
        mirrored=inference.flip,
        interpolation_of_masks="none",
        masks_scored_at="their own size",
        enlargement_of_answers=_enlargement(inference),
        classes=spec.classes,
        ignored=ignored_values(config.ignore_index, reduce_zero_label=config.reduce_zero_label),
        precision=config.precision,
        details={"training": training if known else None},
    )
    return {PROTOCOL: card.document()}


def _enlargement(inference: InferenceConfig) -> str:
    """Say how patches' logits become pixels' classes."""
    windows = "" if inference.window is None else "; logits of windows are averaged"
    ways = len(inference.factors) > 1 or inference.flip
    averaged = "; probabilities of scales and mirror images are averaged" if ways else ""
    return f"bilinear, of logits, to the resized image and then to the mask{windows}{averaged}"
