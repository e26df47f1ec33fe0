"""A stage's configuration as its command line makes it, without running it."""

import dataclasses
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

# What each stage must be told beside a recipe.
PLACES = {
    "extract-targets": ("--images", "images", "--out", "targets.zarr"),
    "pretrain": ("--images", "images", "--targets", "targets", "--out", "run"),
    "finetune": ("--encoder", "./run", "--train", "train", "--val", "val", "--out", "run"),
    "probe": ("--encoder", "./run", "--train", "train", "--test", "test"),
    "segment": ("--encoder", "./run", "--train", "train", "--val", "val", "--out", "run"),
}


def configured(stage: str, *words: str) -> Any:
    """Return the checked configuration that the stage's command makes of these words."""
    (entry,) = entry_points(group="milan_pipeline.stages", name=stage)
    module = import_module(entry.module)
    values = module.command.make_context(stage, list(words)).params
    kinds = [kind for kind in vars(module).values() if dataclasses.is_dataclass(kind)]
    (kind,) = (kind for kind in kinds if getattr(kind, "__module__", "") == module.__name__)
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})  # type: ignore[operator]
