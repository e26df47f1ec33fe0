"""Choices that a training run makes by its data or machine once, and that its later parts keep.

What the dry run of a training stage says.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import torch

from milan_pipeline import storage
from milan_pipeline.core.console import bytes_text, say
from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.provenance.record import read_record
from milan_pipeline.training.checkpoints import newest_checkpoint
from stages.shared.training_options import TrainingOptions

ConfigT = TypeVar("ConfigT", bound=TrainingOptions)


def with_frozen_choices(config: ConfigT, *names: str) -> ConfigT:
    """Fill in what an earlier run into this folder chose where the options leave it open.

    Args:
        config: with None or "auto" where a choice is open.
        names: of the options that may be.
    """
    previous = read_record(storage.join(config.out, "config.json")) or {"content": {}}
    frozen: dict[str, Any] = {
        name: previous["content"][name]
        for name in names
        if getattr(config, name) in (None, "auto") and name in previous["content"]
    }
    return dataclasses.replace(config, **frozen)


def training_precision(precision: str, device: torch.device) -> str:
    """Return the precision to train in; "auto" is bf16 on a GPU, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" else "fp32"


def order_choice(config: TrainingOptions) -> OrderChoice:
    """Return what the options say of the order of samples."""
    return OrderChoice(
        batch=config.batch_size, lanes=config.lanes, block=config.shuffle_block, seed=config.seed
    )


def ledger_of(config: TrainingOptions, what: str, images: int) -> RunLedger:
    """Return where a run notes which of its images cannot be decoded; see `RunLedger`."""
    return RunLedger(config.folder, what, images=images, fraction=config.max_bad_fraction)


def say_steps_to_do(folder: Path, total_steps: int) -> None:
    """Say how many steps are left from the newest checkpoint on."""
    newest = newest_checkpoint(folder)
    left = max(0, total_steps - (newest[0] if newest else 0))
    say(f"steps to do: {left} of {total_steps}", steps_to_do=left, steps=total_steps)


def say_images(learnt: int, scored: int, classes: int | None) -> None:
    """Say how many images there are, and of how many classes."""
    say(
        f"images: {learnt} to learn from, {scored} to score on, classes: {classes}",
        images={"train": learnt, "val": scored},
        classes=classes,
    )


def say_sizes(batch: int, lanes: int, parameters: int, *, trained: int | None = None) -> None:
    """Say what a step takes and, where not all of a model is trained, how much of it is."""
    some = "" if trained is None else f", of which trained: {trained}"
    said = f"batch: {batch}, lanes: {lanes}, parameters: {parameters}{some}"
    say(said, batch=batch, lanes=lanes, parameters=parameters, trained=trained or parameters)


def say_space(out: str, **sizes: int) -> None:
    """Say how many bytes checkpoints and the like will take at most, and how many are free."""
    parts = " and ".join(f"{bytes_text(size)} of {name}" for name, size in sizes.items())
    free = storage.free_text(out)
    say(
        f"bytes to write: about {parts}, free: {free}",
        bytes_to_write=sizes,
        free_bytes=storage.free_bytes(out),
    )
