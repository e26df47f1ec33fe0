"""A student of ours as a teacher: its exported encoder, built and normalised as it was trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from milan_pipeline.errors import ConfigError, DataError, MismatchError, MissingDataError
from milan_pipeline.models.vit import build_encoder, encoder_arguments
from milan_pipeline.models.weight_files import export_encoder
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.provenance.run_state import write_state
from milan_pipeline.teacher.description import visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import MEAN, STD, finished, normalised, pixels

SIZES = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}


def write_run(folder: Path, licence: str | None = None) -> Any:
    """Export a small encoder, and return it."""
    torch.manual_seed(0)
    encoder = finished(build_encoder("vit_base_patch16_224", **SIZES))
    arguments = encoder_arguments("vit_base_patch16_224", **SIZES)
    export_encoder(folder, encoder, arguments, mean=MEAN, std=STD, licence=licence)
    return encoder


@pytest.mark.parametrize("place", ["", "/encoder.safetensors"])
@torch.no_grad()
def test_targets_are_the_students_own_features(place: str, tmp_path: Path) -> None:
    encoder = write_run(tmp_path)
    spec = TeacherSpec(name=f"run:{tmp_path}{place}")
    given = Teacher.load(spec)
    expected = encoder.forward_features(normalised(pixels(32)))
    targets, prior = given(pixels(32))
    torch.testing.assert_close(targets, expected, atol=1e-5, rtol=0)
    assert prior.shape == (3, 16)
    identity = given.identity()
    assert (identity["name"], identity["prior"], identity["space"]) == ("run", "cls", "hidden")
    assert str(tmp_path) not in str(identity)
    assert {**identity, **visible_identity(spec)["teacher"]} == identity


def test_the_licence_of_its_own_teacher_stays(tmp_path: Path) -> None:
    write_run(tmp_path, "cc-by-nc-4.0")
    known = visible_identity(TeacherSpec(name=f"run:{tmp_path}"))
    assert known["teacher"]["license"] == "cc-by-nc-4.0"
    assert known["preprocessing"]["mean"] == list(MEAN)


def test_a_run_that_is_not_done_is_refused(tmp_path: Path) -> None:
    """Where it is continued, the encoder that is there is that of its earlier end."""
    write_run(tmp_path)
    write_state(tmp_path, "running", step=3, total_steps=9)
    spec = TeacherSpec(name=f"run:{tmp_path}")
    for ask in (Teacher.load, visible_identity):  # `plan` asks for the second alone
        with pytest.raises(MismatchError, match="is 'running'; finish it first"):
            ask(spec)
    write_state(tmp_path, "done", step=9, total_steps=9)
    Teacher.load(spec)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(32, dtype=torch.int8), "'norm.weight' of type torch.int8 among its weights"),
        (torch.full((32,), torch.nan), "'norm.weight', which has a value that is not finite"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(
    value: torch.Tensor, said: str, tmp_path: Path
) -> None:
    write_run(tmp_path)
    path = tmp_path / "encoder.safetensors"
    save_file(load_file(path) | {"norm.weight": value}, path)
    (tmp_path / "encoder.sha256").unlink()
    with pytest.raises(DataError, match=said):
        Teacher.load(TeacherSpec(name=f"run:{tmp_path}"))


def test_the_licence_under_its_first_name_is_read(tmp_path: Path) -> None:
    write_run(tmp_path, "mit")
    path = tmp_path / "encoder.json"
    path.write_text(path.read_text().replace("teacher_license", "license"))
    (tmp_path / "encoder.sha256").unlink()
    known = visible_identity(TeacherSpec(name=f"run:{tmp_path}"))
    assert known["teacher"]["license"] == "mit"


def test_a_name_that_timm_would_fetch_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "encoder.json"
    document = json.loads(path.read_text())
    document["timm"]["model_name"] = "hf-hub:stranger/model"
    path.write_text(json.dumps(document))
    (tmp_path / "encoder.sha256").unlink()
    with pytest.raises(DataError, match="'hf-hub:stranger/model', which is no model of timm"):
        visible_identity(TeacherSpec(name=f"run:{tmp_path}"))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("finetune", "is a run of finetune; give the run of pretrain that it began with"),
        ("pretrain", "encoder.json does not exist; run pretrain to its end, which writes it"),
    ],
)
def test_a_run_without_an_encoder_is_told_by_its_stage(
    stage: str, said: str, tmp_path: Path
) -> None:
    record = {"stage": stage, "state": "done", "started": "2026-12-01T00:00:00Z"}
    empty: dict[str, Any] = {key: {} for key in ("content", "inputs", "config", "extent")}
    (tmp_path / "config.json").write_bytes(record_bytes({**record, **empty}))
    with pytest.raises(MissingDataError, match=said):
        visible_identity(TeacherSpec(name=f"run:{tmp_path}"))


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"encoder.json does not exist; give a folder that"):
        Teacher.load(TeacherSpec(name=f"run:{tmp_path}"))
    write_run(tmp_path)
    with pytest.raises(MissingDataError, match=f"lies in the run .*; give run:{tmp_path}$"):
        Teacher.load(TeacherSpec(name=f"run:{tmp_path}/encoder.json"))
    with pytest.raises(ConfigError, match="names no run; give run:FOLDER"):
        visible_identity(TeacherSpec(name="run:"))
    said = "has no effect on --teacher 'run:y'.*leave it out, or give run:FILE.safetensors"
    with pytest.raises(ConfigError, match=said):
        TeacherSpec(name="run:y", pretrained="x")
