"""`pretrain --target pixels`: MAE's objective from images alone."""

import json

import numpy as np
import pytest
import torch

from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.pretraining.defaults import MAES
from tests.support.cli import run_cli
from tests.support.pretrain import SHORT, TINY_STUDENT, log, state, weights

SIZE = ("--image-size", 32)


def pretrain(images, out, *more, code=0):
    words = ("--target", "pixels", "--images", images, "--out", out)
    run_cli("pretrain", *words, *TINY_STUDENT, *SIZE, *SHORT, *more, code=code)


@pytest.fixture(scope="module")
def whole(image_shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("pixels") / "run"
    pretrain(image_shards, out)
    return out


def test_a_run_needs_images_alone_and_makes_maes_choices(whole):
    assert state(whole) == "done"
    record = json.loads((whole / "config.json").read_text())
    assert {name: record["content"][name] for name in MAES} == MAES
    assert record["inputs"]["target"] == "pixels"
    assert load_encoder(str(whole)).features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).any()


def test_a_run_in_parts_ends_in_the_same_bytes(whole, image_shards, tmp_path):
    pretrain(image_shards, tmp_path, "--max-steps", 5)
    pretrain(image_shards, tmp_path)
    assert weights(tmp_path) == weights(whole)
    assert [row["loss"] for row in log(tmp_path)] == [row["loss"] for row in log(whole)]


@pytest.mark.parametrize(
    "more", [("--views", 1), ("--min-scale", 0.9), ("--masking", "block"), ("--target-norm", "l2")]
)
def test_every_choice_makes_another_run(whole, image_shards, tmp_path, more):
    pretrain(image_shards, tmp_path, *more)
    assert weights(tmp_path) != weights(whole)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--targets", "somewhere"), "--target pixels and --targets somewhere do not fit"),
        (("--masking", "semantic"), "--masking semantic needs a teacher's attention"),
        (("--supervise", "all"), "--supervise all does not work with --target pixels"),
        (("--min-scale", 2), "--min-scale 2.0 is for --target pixels and within 0 to 1"),
        (("--batch-size", 4096), "--batch-size 4096 is more than the 24 samples"),
    ],
)
def test_what_does_not_fit_is_refused(image_shards, tmp_path, capsys, more, said):
    pretrain(image_shards, tmp_path / "run", *more, code=2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_features_need_their_targets(image_shards, tmp_path, capsys):
    run_cli("pretrain", "--images", image_shards, "--out", tmp_path / "run", code=2)
    assert "--target features and --targets None do not fit" in capsys.readouterr().err


def test_the_first_loss_is_maes(whole, image_shards):
    """Its formula, on the first batch and weights, with pixels put together from the whole view."""
    from milan_pipeline.data.order import OrderChoice
    from milan_pipeline.data.stream import batches
    from milan_pipeline.models.build import StudentSpec, build_student
    from milan_pipeline.models.student import patchify
    from milan_pipeline.pretraining.pixel_data import open_pixel_data

    order = OrderChoice(batch=8, lanes=None, block=4096, seed=0)
    data = open_pixel_data(str(image_shards), views=None, min_scale=None, order=order)
    content = json.loads((whole / "config.json").read_text())["content"]
    spec = StudentSpec.from_content(content)
    grid, width = data.target_shape(spec)
    student, _ = build_student(spec, grid=grid, target_width=width, seed=0)
    examples = data.to_examples(student, mask_ratio=0.75, masking="random")
    batch = next(batches(data.samples, data.order, examples, steps=range(1), workers=0))
    view_BLP = np.zeros((8, 16, 192), dtype=np.uint8)
    rows = np.arange(8)[:, None]
    view_BLP[rows, batch.kept_BK.numpy()] = batch.patches_BKP.numpy()
    view_BLP[rows, batch.masked_BM.numpy()] = batch.codes[0].numpy()
    images_BCHW = torch.from_numpy(view_BLP).reshape(8, 4, 4, 3, 8, 8).permute(0, 3, 1, 4, 2, 5)
    images_BCHW = images_BCHW.reshape(8, 3, 32, 32).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    patches_BLP = patchify((images_BCHW - mean) / std, 8)
    kept, masked = (
        torch.gather(patches_BLP, 1, at[..., None].expand(-1, -1, 192))
        for at in (batch.kept_BK, batch.masked_BM)
    )
    variance = masked.var(dim=-1, keepdim=True, correction=0)
    target = (masked - masked.mean(dim=-1, keepdim=True)) / (variance + 1e-5).sqrt()
    with torch.no_grad():
        loss = ((student(kept, batch.kept_BK, batch.masked_BM) - target) ** 2).mean()
    assert log(whole)[0]["loss"] == pytest.approx(float(loss), rel=1e-5)
