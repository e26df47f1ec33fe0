"""A run of several teachers: whose targets are shown, and which predictions are theirs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from milan_pipeline.errors import MismatchError
from milan_pipeline.report.run.facts import RunReport
from milan_pipeline.report.run.predictions import head_of, teacher_of

CLIP: dict[str, Any] = {"teacher": {"name": "clip", "width": 6}, "codec": {"name": "int8"}}
DINO: dict[str, Any] = {"teacher": {"name": "dino", "width": 4}, "codec": {"name": "int8"}}


def run(inputs: dict[str, Any]) -> RunReport:
    record = {"inputs": inputs}
    return RunReport(
        evaluations={},
        folder=Path("run"),
        name="run",
        record=record,
        state=None,
        history={},
        results=[],
    )


def rows(identity: dict[str, Any]) -> Any:
    return cast("Any", SimpleNamespace(identity=identity))


TWO = run({"targets": {"b": {"identity": DINO}, "a": {"identity": CLIP}}})


def test_targets_are_shown_beside_the_predictions_of_their_head() -> None:
    assert teacher_of(TWO, rows(DINO | {"codec": {"name": "float16"}}), "t") == "b"
    assert teacher_of(TWO, rows(CLIP), "t") == "a"
    assert (head_of(TWO, "a"), head_of(TWO, "b")) == (slice(0, 6), slice(6, 10))
    alone = run({"identity": DINO})
    assert head_of(alone, teacher_of(alone, rows(DINO), "t")) == slice(0, 4)


def test_targets_of_none_of_the_teachers_are_refused() -> None:
    other = {"teacher": {"name": "vit", "width": 4}}
    with pytest.raises(MismatchError, match=r"a\.teacher\.name is 'clip' .* b\.teacher\.name is"):
        teacher_of(TWO, rows(other), "t")


def test_of_two_that_see_other_views_it_is_the_one_that_learnt_these_targets() -> None:
    clean, view = (CLIP | {"view_policy": {"teacher_sees": sees}} for sees in ("clean", "view"))
    both = run({"targets": {"clean": {"identity": clean}, "view": {"identity": view}}})
    assert teacher_of(both, rows(view), "t") == "view"
    assert teacher_of(both, rows(clean), "t") == "clean"
    with pytest.raises(MismatchError, match="--targets t may be those of clean or view, which"):
        teacher_of(both, rows(CLIP), "t")
