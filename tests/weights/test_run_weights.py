"""The weights that a run holds, and one sentence where it holds none."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.training.checkpoints import MODEL
from milan_pipeline.weights.initial import initial_weights
from milan_pipeline.weights.run_weights import (
    described_encoder,
    encoder_description,
    encoder_weights,
    require_finished,
    student_weights,
)
from tests.support.students import import_checkpoint, official_weights


@pytest.fixture
def run(tmp_path):
    torch.save(official_weights(), tmp_path / "x.pth")
    return import_checkpoint(tmp_path / "x.pth", tmp_path / "run")


def checkpoint(run):
    return run / "checkpoints" / "step-00000000" / MODEL


def test_a_run_begins_from_its_checkpoint_or_else_from_its_encoder(run):
    whole, student = initial_weights(run), student_weights(run)
    assert student is not None
    assert whole.sha256 == student.sha256
    assert whole.state.keys() == load_file(checkpoint(run)).keys()
    checkpoint(run).unlink()
    with pytest.raises(DataError, match=r"no checkpoint of .* is whole"):
        initial_weights(run)
    shutil.rmtree(run / "checkpoints")
    assert student_weights(run) is None
    alone = initial_weights(run)
    assert alone.sha256 == encoder_weights(run).sha256 != whole.sha256
    assert all(torch.equal(alone.state[name], whole.state[name]) for name in alone.state)
    assert alone.state.keys() == {name for name in whole.state if name.startswith("encoder.")}


def test_damaged_files_are_named(run):
    (run / "encoder.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"encoder\.safetensors is not the file that .*\.sha256"):
        encoder_weights(run)
    (run / "encoder.sha256").unlink()
    with pytest.raises(DataError, match=r"encoder\.safetensors is damaged"):
        encoder_weights(run)
    (run / "encoder.json").write_text(json.dumps({"timm": {}}))
    with pytest.raises(DataError, match=r"encoder\.json describes no encoder .*`model_name`"):
        encoder_description(run)


def test_only_a_finished_run_will_do(run, tmp_path):
    require_finished(run)
    (run / "state.json").write_text(json.dumps({"state": "running"}))
    with pytest.raises(MismatchError, match="is 'running'; finish it first"):
        require_finished(run)
    require_finished(run, allow_unfinished=True)
    with pytest.raises(MissingDataError, match="holds no run"):
        require_finished(tmp_path, allow_unfinished=True)


def test_a_description_with_patches_of_no_pixels_is_refused():
    arguments = {"model_name": "vit_tiny_patch16_224", "patch_size": 0}
    with pytest.raises(DataError, match="describes no encoder"):
        described_encoder({"timm": arguments})
