"""The choices of pretrain train, are frozen in the run, and go on as they began."""

import dataclasses
import itertools
import json
import shutil
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.models.baseline_decoders import DECODERS
from milan_pipeline.models.student import SUPERVISE
from milan_pipeline.pretraining.defaults import MAES, MILANS
from milan_pipeline.pretraining.losses import LOSSES, TARGET_NORMS
from milan_pipeline.pretraining.masking import MASKINGS
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.plan import PretrainPlan
from milan_pipeline.weights.loaded_run import load_run
from tests.support.cli import run_cli
from tests.support.pretrain import SHORT, log, pretrain, state, weights

CHOICES = {
    "decoder": DECODERS,
    "loss": LOSSES,
    "target_norm": TARGET_NORMS,
    "supervise": SUPERVISE,
    "masking": MASKINGS,
}


def options(**choices):
    return [
        word for name, value in choices.items() for word in (f"--{name.replace('_', '-')}", value)
    ]


def test_the_options_offer_what_the_library_has():
    for name, values in CHOICES.items():
        field = Pretrain.__dataclass_fields__[name]
        assert field.metadata["choices"] == values
        assert MILANS[name] == values[0]
        assert MAES[name] in values
        assert field.metadata["role"] == "content"


@pytest.mark.parametrize(
    ("epochs", "views", "said"), [(1, 3, "leaves 2 of the 3 views"), (3, 3, "")]
)
def test_views_that_no_epoch_uses_are_said(epochs, views, said, capsys):
    chosen = {"choices": {"decoder": "mae"}.copy}
    config = SimpleNamespace(epochs=epochs, views=views, **chosen)
    PretrainPlan.warn(cast("Any", SimpleNamespace(config=config, schedule_steps=200, data=None)))
    assert said in capsys.readouterr().err
    pixels = SimpleNamespace(epochs=1, views=None, **chosen)
    PretrainPlan.warn(cast("Any", SimpleNamespace(config=pixels, schedule_steps=200, data=None)))
    assert not capsys.readouterr().err


def test_every_choice_makes_another_run(image_shards, target_store, target_shards, tmp_path):
    shards = image_shards, shutil.copytree(target_shards, tmp_path / "targets")
    run_cli("pack-targets", "--targets", target_store, "--out", shards[1], "--phi-s")
    pretrain(*shards, tmp_path / "default", "--max-steps", 2)
    found = {weights(tmp_path / "default")}
    others = [(name, value) for name, values in CHOICES.items() for value in values[1:]]
    for name, value in others:
        run = tmp_path / f"{name}-{value}"
        along = {"loss": "mse"} if value == "none" else {}  # the cosine has no use for lengths
        pretrain(*shards, run, "--max-steps", 2, *options(**{name: value}, **along))
        assert state(run) == "done"
        assert json.loads((run / "config.json").read_text())["content"][name] == value
        found.add(weights(run))
    assert len(found) == 1 + len(others)
    _require_predictions_as_the_teacher_gives_them(tmp_path / "target_norm-phi-s")


def _require_predictions_as_the_teacher_gives_them(run):
    """Where targets are standardised, what is shown of predictions is turned back."""
    loaded = load_run(run)
    places = torch.arange(16)
    inputs = torch.zeros(3, 32, 32, dtype=torch.uint8), places[:4], places[4:]
    raw = dataclasses.replace(loaded, phi_s=[]).predict(*inputs)
    torch.testing.assert_close(loaded.predict(*inputs), loaded.phi_s[0].undo(raw))


@pytest.mark.parametrize(("decoder", "supervise"), [*itertools.product(DECODERS[1:], SUPERVISE)])
def test_decoders_train_on_any_supervised_tokens_and_go_on(decoder, supervise, shards, tmp_path):
    choices = options(decoder=decoder, supervise=supervise, loss="smooth-l1", target_norm="layer")
    pretrain(*shards, tmp_path, "--max-steps", 1, *choices)
    pretrain(*shards, tmp_path, "--max-steps", 2, *choices)
    assert [row["step"] for row in log(tmp_path)] == [1, 2]
    assert all(0 < row["loss"] < 10 for row in log(tmp_path))


def test_another_choice_is_refused_by_name(shards, tmp_path, capsys):
    pretrain(*shards, tmp_path, "--max-steps", 1)
    pretrain(*shards, tmp_path, "--loss", "smooth-l1", code=1)
    assert "options.loss is 'cosine' there and 'smooth-l1' here" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "eva_large_patch14_196"])
def test_a_vit_of_another_kind_trains_and_loads_for_evaluation(name, shards, tmp_path):
    sizes = ("--width", 24, "--depth", 1, "--heads", 2, "--decoder-width", 16, "--decoder-heads", 2)
    words = ("--student", name, "--image-size", 56, *sizes, *SHORT, "--decoder-depth", 1)
    pretrain(*shards, tmp_path, "--max-steps", 1, options=words)
    pixels = torch.randint(0, 256, (2, 3, 56, 56), dtype=torch.uint8)
    trained = load_encoder(str(tmp_path)).features(pixels, pool="both")
    assert trained.shape == (2, 48)
    # The first step of a warm-up has a rate of 0: the weights are still those of the run's seed.
    alike, other = (
        load_encoder(str(tmp_path), random_init=True, seed=seed).features(pixels, pool="both")
        for seed in (0, 1)
    )
    assert torch.equal(trained, alike)
    assert not torch.equal(trained, other)


def test_a_grid_that_does_not_fit_is_refused_before_anything_is_written(shards, tmp_path, capsys):
    words = ("--student", "vit_tiny_patch16_224", *SHORT)
    pretrain(*shards, tmp_path / "run", options=words, code=2)
    error = capsys.readouterr().err
    assert "has a 14x14 grid, the targets have 4x4; give --image-size 64" in error
    assert "or targets of a 14x14 grid" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    pretrain(*shards, tmp_path / "run", "--dry-run", options=words, code=2)
    assert "--image-size 64" in capsys.readouterr().err
