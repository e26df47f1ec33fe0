"""What a teacher's specification says before any weight is read."""

from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.spec import TeacherSpec


def test_paths_are_not_part_of_the_identity(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").touch()
    for pretrained, known in ((str(tmp_path / "clip.pt"), "file"), ("openai", "openai")):
        assert TeacherSpec(name="x", pretrained=pretrained).tag_in_identity == known
    assert TeacherSpec(name="x").tag_in_identity is None
    assert TeacherSpec(name=f"local-dir:{tmp_path}").name_in_identity == "local-dir"
    assert TeacherSpec(name="hf-hub:a/b").name_in_identity == "hf-hub:a/b"


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(ConfigError, match="--precision 'fp8' is unknown"):
        TeacherSpec(name="x", precision="fp8")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"norm": "mine"}, "--teacher-norm 'mine' is no MEAN/STD; give own, imagenet"),
        ({"norm": "123/58"}, "--teacher-norm '123/58' is not of pixels from 0 to 1"),
        ({"norm": "0.5/0"}, "--teacher-norm '0.5/0' is not of pixels from 0 to 1"),
        (
            {"name": "local-dir:x", "pretrained": "openai"},
            "has no effect on --teacher 'local-dir:x'",
        ),
        ({"space": "deep"}, "--space 'deep' is unknown; choose one of auto, projected, hidden"),
        ({"prior": "rand"}, "--prior 'rand' is unknown; choose one of auto, cls, pool"),
        ({"grid": 0}, "--grid 0 is below 1; give 1 or more"),
        ({"layers": 0}, "--layers 0 is below 1; give 1 or more"),
    ],
)
def test_other_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TeacherSpec(**({"name": "x"} | values))
