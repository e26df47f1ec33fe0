"""What `segment` settles of its options, to train as to score."""

import dataclasses
from typing import Any

import torch

from milan_pipeline.cli.options import fields_from
from milan_pipeline.evaluate.segmentation.masks import LabelConfig, Labels
from milan_pipeline.evaluate.segmentation.views import ScaleRule
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.shared.training import training_precision

IMAGE_SIZE = 512
LONG_SIDE = 4  # times the short one: mmsegmentation's 2048 to 512


def settled(config: Segment, device: torch.device, *, image_size: int = IMAGE_SIZE) -> Segment:
    """Fill in what other options or the machine settle.

    Args:
        config: the options.
        device: to train or score on.
        image_size: the default.
    """
    size, frozen = config.image_size or image_size, config.freeze
    short = config.short_side or size
    unless_given: dict[str, Any] = {
        "drop_path": 0.0 if frozen else 0.1,
        "base_lr": 1e-3 if frozen else 1e-4,
        "weight_decay": 1e-4 if frozen else 0.05,
        "stride": max(1, size // 2),
        "long_side": LONG_SIDE * short,
    }
    chosen = {k: v for k, v in unless_given.items() if getattr(config, k) is None}
    precision = training_precision(config.precision, device)
    return dataclasses.replace(
        config, image_size=size, short_side=short, precision=precision, **chosen
    )


def labels_of(config: Segment) -> Labels:
    """Return what decodes masks."""
    return Labels(fields_from(LabelConfig, config))


def scale_rule(config: Segment) -> ScaleRule:
    """Return how large images are made; the options are settled."""
    return fields_from(ScaleRule, config)
