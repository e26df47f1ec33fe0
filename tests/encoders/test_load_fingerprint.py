"""What the scores of an encoder are told apart by: its files, or its name and tag."""

import pytest

from milan_pipeline.encoders.load import fingerprint
from milan_pipeline.errors import MissingDataError


def test_a_student_is_told_apart_by_its_files(tmp_path):
    (tmp_path / "encoder.safetensors").write_bytes(b"weights")
    (tmp_path / "encoder.json").write_text('{"mean": 0}')
    whole, described = (fingerprint(str(tmp_path), random_init=drawn) for drawn in (False, True))
    (tmp_path / "encoder.safetensors").write_bytes(b"other")
    assert fingerprint(str(tmp_path)) != whole
    assert fingerprint(str(tmp_path), random_init=True) == described
    (tmp_path / "encoder.json").write_text("{}")
    assert fingerprint(str(tmp_path), random_init=True) != described


def test_a_local_teacher_is_told_apart_by_its_files(tmp_path):
    spec = f"open_clip:local-dir:{tmp_path}"
    with pytest.raises(MissingDataError, match="holds no CLIP"):
        fingerprint(spec)
    found = []
    for name, content in (
        ("open_clip_config.json", "{}"),
        ("model.safetensors", "a"),
        ("model.safetensors", "b"),
        ("open_clip_model.safetensors", "b"),
    ):
        (tmp_path / name).write_text(content)
        found.append(fingerprint(spec))
    assert len(set(found)) == 4
    (tmp_path / "scores.txt").touch()
    assert fingerprint(spec) == found[-1]


def test_a_teachers_checkpoint_file_is_hashed(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"1")
    spec = f"open_clip:ViT-B-16/{tmp_path}/a.pt"
    first = fingerprint(spec)
    (tmp_path / "a.pt").write_bytes(b"2")
    assert len({first, fingerprint(spec), spec}) == 3
    assert fingerprint("open_clip:ViT-B-16/openai") == "open_clip:ViT-B-16/openai"
