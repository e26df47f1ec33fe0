"""What a record says of how its output was computed."""

import dataclasses
from pathlib import Path

import pytest

from milan_pipeline.core.cores import computing
from milan_pipeline.errors import MismatchError
from milan_pipeline.provenance.record import StageRecord, read_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computes:
    threads: int = dataclasses.field(metadata={"role": "execution"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Older:
    size: int = dataclasses.field(metadata={"role": "content"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Newer(Older):
    shape: tuple[str, ...] = dataclasses.field(default=("flat",), metadata={"role": "content"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reads(Older):
    encoder: str = dataclasses.field(metadata={"role": "content"})


def part(folder: Path, threads: int, *, done: bool) -> str | None:
    """Run a part of a stage's work; return the state that it found."""
    options = Computes(threads=threads)
    record = StageRecord(url=str(folder / "bake.json"), stage="bake", config=options, inputs={})
    with computing(options):
        found = record.previous_state()
        record.begin()
        if done:
            record.finish({})
    return found


def test_a_resume_with_other_threads_goes_on_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert part(tmp_path, 2, done=False) is None
    assert part(tmp_path, 2, done=False) == "running"
    assert not capsys.readouterr().err
    assert part(tmp_path, 1, done=True) == "running"
    assert "begun with 2 threads and goes on with 1" in capsys.readouterr().err
    record = read_record(str(tmp_path / "bake.json"))
    assert record is not None
    assert record["threads"] == 1
    assert part(tmp_path, 2, done=True) == "done"  # made anew, from its first step
    assert not capsys.readouterr().err


def test_a_run_of_an_older_version_goes_on_if_a_new_option_has_its_default(tmp_path: Path) -> None:
    def record(options: Older) -> StageRecord:
        return StageRecord(url=str(tmp_path / "bake.json"), stage="bake", config=options, inputs={})

    record(Older(size=3)).begin()
    assert record(Newer(size=3)).previous_state() == "running"
    record(Newer(size=3)).require_joinable()
    with pytest.raises(MismatchError, match=r"options\.shape is \['flat'\] there"):
        record(Newer(size=3, shape=("round",))).previous_state()


@pytest.mark.parametrize(("weights", "same"), [("abc", True), ("def", False)])
def test_an_input_that_was_moved_is_the_same_and_another_one_is_not(
    tmp_path: Path, weights: str, same: bool
) -> None:
    def record(options: Reads, weights: str) -> StageRecord:
        url, inputs = str(tmp_path / "bake.json"), {"encoder": weights}
        return StageRecord(url=url, stage="bake", config=options, inputs=inputs)

    record(Reads(size=3, encoder="runs/a"), "abc").begin()
    moved = record(Reads(size=3, encoder="old/a"), weights)
    if same:
        assert moved.previous_state() == "running"
    else:
        with pytest.raises(MismatchError, match=r"inputs\.encoder is 'abc' there and 'def' here"):
            moved.previous_state()
