"""Recipes say what the design's section 5 does, and the stages read them so."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from milan_pipeline.cli.recipes import find_recipe, read_sections, recipe_names
from milan_pipeline.evaluate.probe.protocols import OfficialLinear
from milan_pipeline.stages.probe.command import Probe
from tests.support.cli import PLACES, configured, run_cli
from tests.support.clip import write_tiny_clip
from tests.support.pictures import write_ade_tree

# Section 5: "AdamW, wd 0.05, lr = 1.5e-4·batch/256, 400 epochs, 40 warm-up, mask 0.75, batch 4096,
# RandomResizedCrop(0.2-1), 224 px", a decoder of 8 blocks, 512 wide, 16 heads, 2 - 2 cos over all
# tokens; ImageNet's mean and std for the teacher, as the official code feeds it.
TARGETS = {
    "teacher": "ViT-B-16",
    "pretrained": "openai",
    "teacher_norm": "imagenet",
    "view_policy": "random-resized-crop",
    "min_scale": 0.2,
    "layers": 1,
    "space": "auto",  # for CLIP, projected
}
PRETRAIN = {
    "decoder": "prompting",
    "decoder_width": 512,
    "decoder_depth": 8,
    "decoder_heads": 16,
    "loss": "cosine",
    "target_norm": "l2",
    "supervise": "all",
    "masking": "semantic",
    "mask_ratio": 0.75,
    "epochs": 400,
    "warmup_epochs": 40.0,
    "batch_size": 4096,
    "base_lr": 1.5e-4,
    "weight_decay": 0.05,
    "image_size": 224,
}
# "fine-tune (B / L): 100 epochs, batch 1024, base lr 1e-4 (per 256), 5 warm-up, min 1e-6, layer
# decay 0.65 / 0.75, drop path 0.1 / 0.2, wd 0.05, RandAugment m9-mstd0.5, smoothing 0.1, mixup 0.8,
# cutmix 1.0, erasing 0.25, mean pooling."
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
    "crop_pct": 0.875,
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
# A linear head on frozen patches of the last layer (arXiv 2304.07193), at its batch of 16.
LINEAR_SEGMENT = {
    "classes": 150,
    "reduce_zero_label": True,
    "head": "linear",
    "freeze": True,
    "image_size": 512,
    "long_side": 0,
    "batch_size": 16,
    "steps": 40_000,
    "warmup_steps": 1500,
    "schedule": "poly",
    "base_lr": 1e-3,
    "min_lr": 0.0,
    "weight_decay": 1e-4,
    "evaluate": "slide",
    "stride": 341,
}
B16, L16 = "imagenet1k-vit-b16", "imagenet1k-vit-l16"
PUBLISHED = {
    (B16, "extract-targets"): TARGETS,
    (L16, "extract-targets"): TARGETS,
    (B16, "pretrain"): PRETRAIN | {"student": "vit_base_patch16_224"},
    (L16, "pretrain"): PRETRAIN | {"student": "vit_large_patch16_224"},
    (B16, "finetune"): FINETUNE | {"layer_decay": 0.65, "drop_path": 0.1},
    (L16, "finetune"): FINETUNE | {"layer_decay": 0.75, "drop_path": 0.2},
    (B16, "probe"): LINEAR | {"linear_lr": 0.05},
    (L16, "probe"): LINEAR | {"linear_lr": 0.02},
    ("segment-ade20k-vit-b16", "segment"): SEGMENT,
    ("segment-ade20k-linear", "segment"): LINEAR_SEGMENT,
}
SECTIONS = [(name, stage) for name in recipe_names() for stage in read_sections(find_recipe(name))]


def comments_of(recipe: str) -> list[str]:
    """The lines at the head of a recipe, without their marks."""
    text = find_recipe(recipe).read_text(encoding="utf-8")
    head = text[: re.search(r"^[a-z]", text, flags=re.MULTILINE).start()]  # type: ignore[union-attr]
    return [line.removeprefix("#") for line in head.splitlines()]


def commands_of(recipe: str) -> Iterator[tuple[str, list[str]]]:
    """Yield stage and words of each command at the head of a recipe."""
    lines = "\n".join(comments_of(recipe)).replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.split(line, comments=True) if line.startswith("   ") else []
        if words[:1] == ["torchrun"]:
            words = ["", *get_args_parser().parse_args(words[1:]).training_script_args]
        if words:
            yield words[1], words[2:]


@pytest.mark.parametrize(("recipe", "stage"), PUBLISHED)
def test_a_recipe_is_the_published_one(recipe: str, stage: str) -> None:
    config = configured(stage, "--config", recipe, *PLACES[stage])
    expected = PUBLISHED[recipe, stage]
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("recipe", "stage"),
    [(name, stage) for name, stage in SECTIONS if stage in ("pretrain", "finetune", "segment")],
)
def test_a_recipe_for_gpus_feeds_them(recipe: str, stage: str) -> None:
    config = configured(stage, "--config", recipe, *PLACES[stage])
    for_gpus = recipe not in ("demo", "finetune-few-labels")
    assert (config.compile, config.workers) == (for_gpus, "auto" if for_gpus else 2)


@pytest.mark.parametrize("recipe", [name for name, stage in SECTIONS if stage == "probe"])
def test_images_to_probe_are_decoded_on_all_cores(recipe: str) -> None:
    config = configured("probe", "--config", recipe, *PLACES["probe"])
    assert config.workers == ("auto" if recipe != "demo" else 2)


@pytest.mark.parametrize("recipe", recipe_names())
def test_the_commands_of_a_recipe_are_what_its_stages_take(recipe: str) -> None:
    commands = list(commands_of(recipe))
    for stage, words in commands:
        configured(stage, *words)
    with_it = [stage for stage, words in commands if words[:2] == ["--config", recipe]]
    assert list(dict.fromkeys(with_it)) == list(read_sections(find_recipe(recipe)))


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_recipe_says_what_is_published_and_not_reproduced(recipe: str) -> None:
    comments = " ".join(" ".join(comments_of(recipe)).split())
    if any(recipe == published for published, _ in PUBLISHED):
        assert "zejiangh/MILAN" in comments or "mmsegmentation" in comments
        assert "2208.06049" in comments
        assert "not reproduced here" in comments
    else:
        assert "not published" in comments or "README" in comments


@pytest.mark.parametrize(
    ("recipe", "stage"), [(name, stage) for name, stage in SECTIONS if stage == "extract-targets"]
)
def test_what_a_recipe_is_planned_for_is_what_it_extracts(recipe: str, stage: str) -> None:
    extracted = configured(stage, "--config", recipe, *PLACES[stage])
    trained = configured("pretrain", "--config", recipe, *PLACES["pretrain"])
    plans = [configured(stage, *words) for stage, words in commands_of(recipe) if stage == "plan"]
    assert len(plans) == (recipe != "demo")
    for plan in plans:
        assert plan.teacher_spec == extracted.teacher_spec
        assert (plan.views, plan.codec) == (extracted.views, extracted.codec)
        assert plan.epochs == trained.epochs
        assert trained.batch_size % (plan.devices * trained.micro_batch) == 0


def test_the_official_protocols_defaults_are_its_recipe() -> None:
    config, protocol = configured("probe", "--config", B16, *PLACES["probe"]), OfficialLinear()
    assert isinstance(config, Probe)
    assert (config.linear_epochs, config.linear_warmup_epochs) == (
        protocol.epochs,
        protocol.warmup_epochs,
    )
    # ImageNet-1K's: for a set of that size the default batch is the published.
    assert protocol.batch_of(1_281_167) == config.linear_batch


@pytest.fixture(scope="module")
def places(
    image_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, ...]]:
    """What each stage reads: 24 images, targets of 14 x 14 tokens of a tiny tower, masks.

    Batches are of so many images; a student has one block and an encoder is a small one, for time.
    """
    root = tmp_path_factory.mktemp("places")
    clip = write_tiny_clip(root / "clip", image_size=14 * 8)
    teacher = ("--teacher", f"local-dir:{clip}", "--codec", "int8")
    run_cli("extract-targets", "--images", image_shards, "--out", root / "t.zarr", *teacher)
    run_cli("pack-targets", "--targets", root / "t.zarr", "--out", root / "targets")
    masked = write_ade_tree(root, {"a": 4, "b": 2}, first=1) / "images"
    encoder = ("--encoder", "timm:test_vit", "--random-init")
    small = ("--batch-size", 8, "--image-size", 32)
    return {
        "extract-targets": ("--images", image_shards),
        "pretrain": (
            "--images", image_shards, "--targets", root / "targets", "--batch-size", 8,
            "--depth", 1, "--decoder-depth", 1,
        ),
        "finetune": (*encoder, *small, "--train", image_shards, "--val", image_shards),
        "probe": (*encoder, "--train", image_shards, "--val", image_shards),
        "segment": (
            *encoder, "--train", masked / "a", "--val", masked / "b", "--batch-size", 2,
            "--image-size", 32, "--stride", 32, "--channels", 8,
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("recipe", "stage"), SECTIONS)
def test_every_section_dry_runs(
    recipe: str,
    stage: str,
    places: dict[str, tuple[object, ...]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    run_cli(stage, "--config", recipe, *places[stage], "--out", out, "--dry-run")
    assert "bytes to write" in capsys.readouterr().out
    assert not out.exists()
