"""A stage's configuration as its command line makes it, without running it."""

import dataclasses
from importlib import import_module
from typing import Any

from milan_pipeline.cli.main import main
from milan_pipeline.cli.options import argument, option
from milan_pipeline.cli.recipes import installed_stages

NO_HEAVY_IMPORTS = """
import sys
from milan_pipeline.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "open_clip", "timm"})
assert not heavy, heavy
"""
# What each stage must be told beside a recipe.
PLACES = {
    "extract-targets": ("--images", "images", "--out", "targets.zarr"),
    "pretrain": ("--images", "images", "--targets", "targets", "--out", "run"),
    "finetune": ("--encoder", "./run", "--train", "train", "--val", "val", "--out", "run"),
    "probe": ("--encoder", "./run", "--train", "train", "--val", "test"),
    "segment": ("--encoder", "./run", "--train", "train", "--val", "val", "--out", "run"),
}


def configured(stage: str, *words: str) -> Any:
    """Return the checked configuration that the stage's command makes of these words."""
    (entry,) = installed_stages().select(name=stage)
    module = import_module(entry.module)
    values = module.command.make_context(stage, list(words)).params
    kinds = [kind for kind in vars(module).values() if dataclasses.is_dataclass(kind)]
    (kind,) = (kind for kind in kinds if getattr(kind, "__module__", "") == module.__name__)
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})  # type: ignore[operator]


def run_cli(*words: object, code: int = 0) -> None:
    """Run a command in this process and check its exit code."""
    found: object = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        found = stop.code or 0
    assert found == code


def extract_targets(
    images: object, clip: object, out: object, *words: object, code: int = 0
) -> None:
    """Run `extract-targets` with a teacher in a folder."""
    teacher = f"local-dir:{clip}"
    places = ("--images", images, "--out", out, "--teacher", teacher)
    run_cli("extract-targets", *places, *words, code=code)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bake:
    """Bake a cake."""

    flour: str = argument()
    batch_size: int = option(4, help="Cakes at once.")
    heat: float | None = option(None, help="Degrees.")
    kind: str = option("plain", help="Which cake.", choices=("plain", "nut"))
    spice: tuple[str, ...] = option((), help="Spices; again for more.")
    cover: bool = option(default=True, help="With a cover.")
