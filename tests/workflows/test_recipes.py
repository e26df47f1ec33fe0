"""Recipes say what the design's section 5 does, and the stages read them so."""

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.linear_protocols import OfficialLinear
from stages.probe import Probe

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"

# Section 5: "fine-tune (B / L): 100 epochs, batch 1024, base lr 1e-4 (per 256), 5 warm-up, min
# 1e-6, layer decay 0.65 / 0.75, drop path 0.1 / 0.2, wd 0.05, RandAugment m9-mstd0.5, smoothing
# 0.1, mixup 0.8, cutmix 1.0, erasing 0.25, mean pooling."
FINETUNE = {
    "epochs": 100,
    "batch_size": 1024,
    "base_lr": 1e-4,
    "warmup_epochs": 5.0,
    "min_lr": 1e-6,
    "weight_decay": 0.05,
    "augment": "rand-m9-mstd0.5-inc1",
    "smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "erasing": 0.25,
    "pool": "mean",
    "image_size": 224,
}
# "Linear: CLS, BatchNorm without affine, LARS, batch 16384, base lr 0.05 / 0.02, wd 0, 100 epochs,
# 10 warm-up."
LINEAR = {
    "linear": ("official",),
    "pool": "cls",
    "linear_batch": 16384,
    "linear_epochs": 100,
    "linear_warmup_epochs": 10.0,
}
# UPerNet on ADE20K (arXiv 2106.08254, 2111.06377), for a ViT-B.
SEGMENT = {
    "classes": 150,
    "reduce_zero_label": True,
    "ignore_index": 255,
    "head": "upernet",
    "image_size": 512,
    "batch_size": 16,
    "steps": 160_000,
    "warmup_steps": 1500,
    "schedule": "poly",
    "base_lr": 1e-4,
    "min_lr": 0.0,
    "layer_decay": 0.65,
    "weight_decay": 0.05,
    "drop_path": 0.1,
    "evaluate": "slide",
    "stride": 256,
    "freeze": False,
}
EXPECTED = {
    "finetune-vit-b16": FINETUNE | {"layer_decay": 0.65, "drop_path": 0.1},
    "finetune-vit-l16": FINETUNE | {"layer_decay": 0.75, "drop_path": 0.2},
    "linear-vit-b16": LINEAR | {"linear_lr": 0.05},
    "linear-vit-l16": LINEAR | {"linear_lr": 0.02},
    "segment-ade20k-vit-b16": SEGMENT,
}
STAGES = {"finetune": "finetune", "linear": "probe", "segment": "segment"}
PLACES = {
    "finetune": ["--train", "train", "--val", "val", "--out", "run"],
    "probe": ["--train", "train", "--test", "test"],
    "segment": ["--train", "train", "--val", "val", "--out", "run"],
}


def _configured(recipe: str) -> Any:
    """The stage's configuration as its command line makes it of `--config RECIPE`."""
    stage = STAGES[recipe.partition("-")[0]]
    module = import_module(f"stages.{stage}")
    words = ["--config", str(RECIPES / f"{recipe}.yaml"), "--encoder", "runs/first", *PLACES[stage]]
    parameters = module.command.make_context(stage, words).params
    kind = getattr(module, stage.capitalize())
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in parameters.items() if name in names})


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_is_the_published_one(recipe: str) -> None:
    config = _configured(recipe)
    assert {name: getattr(config, name) for name in EXPECTED[recipe]} == EXPECTED[recipe]


def test_every_recipe_is_compared() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_names_its_source_and_what_is_not_reproduced(recipe: str) -> None:
    text = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8")
    comments = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    assert "zejiangh/MILAN" in comments or "mmsegmentation" in comments
    assert "reproduced here" in comments
    assert f"--config workflows/recipes/{recipe}.yaml" in comments


def test_the_official_protocols_defaults_are_its_recipe() -> None:
    config, protocol = _configured("linear-vit-b16"), OfficialLinear()
    assert isinstance(config, Probe)
    assert (config.linear_epochs, config.linear_warmup_epochs) == (
        protocol.epochs,
        protocol.warmup_epochs,
    )
    # ImageNet-1K's: for a set of that size the default batch is the published.
    assert protocol.batch_of(1_281_167) == config.linear_batch
