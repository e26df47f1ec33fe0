"""What `segment` settles of its options, to train as to score."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from milan_pipeline.cli.options import fields_from
from milan_pipeline.errors import ConfigError, reason_of
from milan_pipeline.evaluate.segmentation.files import SegmenterDescription
from milan_pipeline.evaluate.segmentation.inference import InferenceConfig
from milan_pipeline.evaluate.segmentation.masks import LabelConfig, Labels
from milan_pipeline.evaluate.segmentation.model import Segmenter
from milan_pipeline.evaluate.segmentation.scoring import SegmentationEvaluationConfig
from milan_pipeline.evaluate.segmentation.task import PUBLISHED_BATCH
from milan_pipeline.evaluate.segmentation.views import ScaleRule
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.shared.training import training_precision
from milan_pipeline.stages.shared.training_notes import warn_of_idle

IMAGE_SIZE = 512
LONG_SIDE = 4  # times the short one: mmsegmentation's 2048 to 512
FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of --multi-scale."""


def settled(config: Segment, device: torch.device, *, image_size: int = IMAGE_SIZE) -> Segment:
    """Fill in what other options or the machine settle.

    Args:
        config: the options.
        device: to train or score on.
        image_size: the default.
    """
    size, frozen = config.image_size or image_size, config.freeze
    short = config.short_side or size
    if config.long_side and config.long_side < short:
        flag = "--image-size" if config.short_side is None else "--short-side"
        raise ConfigError(
            f"--long-side {config.long_side} is less than {flag} {short}, which no image would "
            "have then; give more, or 0 for no limit"
        )
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


def warn_of_idle_options(config: Segment) -> None:
    """Say which options change nothing with others; the options are settled."""
    if config.evaluate == "whole":
        usual = max(1, (config.image_size or IMAGE_SIZE) // 2)
        warn_of_idle({"stride": usual}, config, "with --evaluate whole")
    if config.head == "linear" and not config.eval_only:
        warn_of_idle(["channels"], config, "with --head linear")


def labels_of(config: Segment) -> Labels:
    """Return what decodes masks."""
    return Labels(fields_from(LabelConfig, config, trained=config.eval_only))


def class_names(config: Segment) -> tuple[str, ...]:
    """Return the names of the classes by `--class-names`; none where there is no such file.

    Names of image classes, which shards may have, are not those of a mask's numbers.

    Raises:
        ConfigError: the file cannot be read, or has not one name for each class.
    """
    if config.class_names is None:
        return ()
    given = f"--class-names {config.class_names}"
    try:
        text = Path(config.class_names).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{given} cannot be read ({reason_of(error)}); give a text file in UTF-8 with a name "
            "in each line"
        ) from error
    names = [line.strip() for line in text.strip().splitlines()]
    if "" in names:
        raise ConfigError(f"{given}: line {names.index('') + 1} is empty; give its class a name")
    if len(names) != config.classes:
        raise ConfigError(
            f"{given} has {len(names)} lines for {config.classes} classes; give the name of one "
            "class in each line, in the order of their numbers"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{given} has the name {twice!r} twice; give each class its own")
    return tuple(names)


def scale_rule(config: Segment) -> ScaleRule:
    """Return how large images are made; the options are settled."""
    return fields_from(ScaleRule, config)


def evaluation_config(
    config: Segment, model: Segmenter, description: SegmenterDescription
) -> SegmentationEvaluationConfig:
    """Return how to score with the resources that training may take; the options are settled."""
    size, stride = config.image_size or 0, config.stride or 0
    inference = InferenceConfig(
        scale=scale_rule(config),
        factors=FACTORS if config.multi_scale else (1.0,),
        flip=config.multi_scale,
        window=size if config.evaluate == "slide" else None,
        stride=stride,
        multiple=model.patch_size,
        batch=min(config.micro_batch, PUBLISHED_BATCH),
    )
    return SegmentationEvaluationConfig(
        inference=inference,
        mean=description.mean,
        std=description.std,
        classes=description.spec.classes,
        threads=max(1, config.loaders),
        bf16=config.precision == "bf16",
    )
