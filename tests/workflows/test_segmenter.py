"""The demo's second teacher: what its training sees, and the weights that are in the repository."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from workflows.demo import scenes
from workflows.demo.compose import SIZE
from workflows.demo.pool import VIEW, Crop, crop_of, random_crop, whole_views
from workflows.demo.train_segmenter import (
    LABELS,
    Recipe,
    Segmenter,
    check,
    loss_of,
    random_views,
    read_scenes,
    train,
)

KEPT = Path(__file__).parents[2] / "workflows/demo/segmenter"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    scenes.generate(out, scenes.Recipe(seed=3, train=24, test=12), workers=1)
    return out


def test_a_mask_is_of_the_crop_that_its_view_shows(drawn: Path) -> None:
    found = read_scenes(drawn, "train")
    assert (found.pixels.shape, found.masks.shape) == ((24, 3, SIZE, SIZE), (24, SIZE, SIZE))
    # Where pixels are the mask itself, a view and its mask can differ at edges alone.
    shown = np.repeat(20 * found.masks[:, None], 3, axis=1)
    views, masks = random_views(
        found._replace(pixels=shown), np.arange(24), 0.35, np.random.default_rng(0)
    )
    assert (views.shape, masks.shape) == ((24, 3, VIEW, VIEW), (24, VIEW, VIEW))
    assert float((views[:, 0].long() == 20 * masks).float().mean()) > 0.8
    turned = random_crop(0.35, np.random.default_rng(1))
    cut = crop_of(shown[0], turned._replace(flip=False))
    assert torch.equal(crop_of(shown[0], turned._replace(flip=True)), cut.flip(-1))
    whole = Crop(0, 0, SIZE, SIZE, flip=False)
    assert set(crop_of(found.masks[:1], whole, nearest=True).unique().tolist()) <= set(
        range(LABELS)
    )


def test_the_loss_falls_to_nothing_where_pixels_and_shares_are_right(drawn: Path) -> None:
    torch.manual_seed(0)
    model, found = Segmenter(), read_scenes(drawn, "test")
    views = torch.from_numpy(found.pixels[..., :VIEW, :VIEW].copy())
    masks = torch.zeros(12, VIEW, VIEW, dtype=torch.long)
    with torch.no_grad():
        for head in (model.of_pixels, model.of_view):
            head.weight.zero_()
            head.bias.zero_()
        before = float(loss_of(model, views, masks))
        assert before == pytest.approx(2 * np.log(LABELS), rel=1e-5)
        model.of_view.bias[0] = 30.0
        assert float(loss_of(model, views, masks)) == pytest.approx(before / 2, rel=1e-5)
        model.of_pixels.bias[: model.patch**2] = 30.0  # class 0 of each pixel of a patch
        assert float(loss_of(model, views, masks)) == pytest.approx(0, abs=1e-5)
    background = found._replace(masks=np.zeros_like(found.masks))
    assert check(model, background)["pixels"] == 100


def test_training_writes_an_encoder_that_is_a_teacher(drawn: Path, tmp_path: Path) -> None:
    scenes_of = read_scenes(drawn, "train"), read_scenes(drawn, "test")
    assert train(Recipe(minutes=0, batch=8), *scenes_of, tmp_path)["steps"] == 1
    given = Teacher.load(TeacherSpec(name=f"run:{tmp_path}"))
    assert (given.grid, given.image_size, given.prior) == ((8, 8), VIEW, "cls")


def test_the_weights_that_are_kept_know_where_an_object_is(drawn: Path) -> None:
    """In unseen scenes, patches of an object are more like each other than like the background."""
    assert sum(path.stat().st_size for path in KEPT.iterdir()) <= 4 << 20
    assert json.loads((KEPT / "training.json").read_text())["scenes"]["seed"] == 3
    found = read_scenes(drawn, "test")
    targets, _ = Teacher.load(TeacherSpec(name=f"run:{KEPT}"))(whole_views(found.pixels))
    patches = torch.nn.functional.normalize(targets[:, 1:] - targets[:, 1:].mean((0, 1)), dim=-1)
    masks = torch.from_numpy(found.masks[:, None]).float()
    objects = torch.nn.functional.adaptive_avg_pool2d((masks > 0).float(), 8).flatten(1)
    alike, unlike = [], []
    for tokens, share in zip(patches, objects, strict=True):
        inside, outside = tokens[share > 0.9], tokens[share == 0]
        alike.append((inside @ inside.T).mean())
        unlike.append((inside @ outside.T).mean())
    assert torch.stack(alike).nanmean() > torch.stack(unlike).nanmean() + 0.5
