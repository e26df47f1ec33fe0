"""Choices that a training run makes by its data or machine once, and that its later parts keep."""

import dataclasses
from typing import Any, TypeVar

import torch

from milan_pipeline import storage
from milan_pipeline.provenance import read_record
from milan_pipeline.run_ledger import RunLedger
from milan_pipeline.training_options import TrainingOptions

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


def ledger_of(config: TrainingOptions, what: str, images: int) -> RunLedger:
    """Return where a run notes which of its images cannot be decoded; see `RunLedger`."""
    return RunLedger(config.folder, what, images=images, fraction=config.max_bad_fraction)
