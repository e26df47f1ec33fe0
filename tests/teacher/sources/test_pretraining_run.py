"""A student of ours as a teacher: its exported encoder, built and normalised as it was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.models.vit import build_encoder, encoder_arguments
from milan_pipeline.models.weight_files import export_encoder
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


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"encoder.json does not exist; run the command"):
        Teacher.load(TeacherSpec(name=f"run:{tmp_path}"))
    with pytest.raises(ConfigError, match="names no run; give run:FOLDER"):
        visible_identity(TeacherSpec(name="run:"))
    with pytest.raises(ConfigError, match="--pretrained 'x' has no effect on --teacher 'run:y'"):
        TeacherSpec(name="run:y", pretrained="x")
