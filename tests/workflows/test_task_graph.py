"""Commands that need each other: their order, their marks, and how a failure stops them."""

import fcntl
import sys
import threading
from graphlib import CycleError
from pathlib import Path

import pytest

from workflows.study.mark import read_mark, write_mark
from workflows.study.snakefile import snakefile
from workflows.study.task_graph import (
    Task,
    TaskError,
    digests,
    drop_stale_marks,
    is_done,
    locked,
    run_tasks,
)


def _python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_tasks_run_after_what_they_need_and_add_to_their_logs(tmp_path: Path) -> None:
    one, two = (tmp_path / name for name in ("one", "two"))
    tasks = [
        Task(name="second", command=_python(f"open({str(one)!r}); open({str(two)!r}, 'w')"),
             needs=("first",)),
        Task(name="first", command=_python(f"print('hello'); open({str(one)!r}, 'w')")),
    ]  # fmt: skip
    for part in range(2):
        run_tasks(tasks, logs=tmp_path / "logs", marks=tmp_path / f"done-{part}", jobs=2)
        times = read_mark(tmp_path / f"done-{part}", "second")
        assert times["cpu_seconds"] > 0
    assert two.exists()
    assert (tmp_path / "logs" / "first.log").read_text().split() == ["hello", "hello"]


def test_of_those_that_may_start_the_first_in_the_list_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = {"b": ("a",), "c": ("a",), "d": (), "a": ()}
    tasks = [Task(name=name, command=_python("pass"), needs=needs[name]) for name in "abcd"]
    for expected in (["a:", "b:", "c:", "d:"], ["b:", "d:"]):  # once more, without two marks
        run_tasks(tasks, logs=tmp_path / "logs", marks=tmp_path / "done", jobs=1)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines] == expected
        for name in "bd":
            (tmp_path / "done" / f"{name}.json").unlink()


def test_a_failing_command_is_named_and_others_are_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one would wait for ever; it may have said nothing when it is stopped."""
    tasks = [
        Task(name="endless", command=_python("import signal; signal.pause()")),
        Task(name="bad", command=_python("print('the reason'); raise SystemExit(3)")),
        Task(name="after", command=_python("pass"), needs=("bad",)),
    ]
    with pytest.raises(TaskError, match=r"bad failed \(exit code 3\)(.|\n)*the reason"):
        run_tasks(tasks, logs=tmp_path / "logs", marks=tmp_path / "done", jobs=2)
    assert not (tmp_path / "logs" / "after.log").exists()
    assert capsys.readouterr().out == ""


def test_circles_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    circle = [Task(name=a, command=_python("pass"), needs=(b,)) for a, b in ("xy", "yx")]
    with pytest.raises(CycleError):
        run_tasks(circle, logs=tmp_path / "logs", marks=tmp_path / "done", jobs=1)
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TaskError, match="in use"), locked(tmp_path, patience=0):
            pass
    with locked(tmp_path):
        pass


def test_a_folder_whose_commands_are_just_ending_is_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ends = threading.Timer(0.3, fcntl.flock, (file, fcntl.LOCK_UN))
        ends.start()
        with locked(tmp_path):
            ends.join()


def test_what_is_done_runs_again_only_if_it_or_what_it_needs_changes(tmp_path: Path) -> None:
    made = tmp_path / "made"

    def run(first: str = "1") -> list[str]:
        tasks = [
            Task(name="first", command=_python(f"print({first})")),
            Task(name="second", command=_python(f"print(2); open({str(made)!r}, 'w')"),
                 needs=("first",), output=made),
            Task(name="other", command=_python("print(3)")),
        ]  # fmt: skip
        run_tasks(tasks, logs=tmp_path / "logs", marks=tmp_path / "done", jobs=2)
        digest_of = digests(tasks)
        assert all(is_done(task, digest_of[task.name], tmp_path / "done") for task in tasks)
        names = ("first", "second", "other")
        return ["".join((tmp_path / "logs" / f"{n}.log").read_text().split()) for n in names]

    assert run() == run() == ["1", "2", "3"]
    made.unlink()
    assert run() == ["1", "22", "3"]
    assert run("11") == ["111", "222", "3"]
    (tmp_path / "done" / "other.json").write_text("torn")
    assert run("11") == ["111", "222", "33"]


def test_a_snakefile_has_a_rule_a_task_with_the_same_marks(tmp_path: Path) -> None:
    tasks = [
        Task(name="extract-targets", command=("milan", "extract-targets", "--a", "{b} 'c'")),
        Task(name="pack", command=("milan", "pack"), needs=("extract-targets",)),
    ]
    text = snakefile(tasks, Path("Snakefile"), logs=Path("logs"), marks=Path("done"), threads=4)
    assert text.count("\nrule ") == 3
    assert text.count('"done/pack.json"') == 2
    assert text.count('"done/extract-targets.json"') == 3
    assert [line.strip() for line in text.splitlines() if "threads" in line] == [
        "threads: 4", "threads: 1",
    ]  # fmt: skip
    assert "{{b}}" in text
    assert f'digest="{digests(tasks)["pack"]}"' in text
    assert text.count('gpu=config.get("gpus", 1)') == text.count("gpu=0") == 1


def test_marks_of_commands_that_have_changed_are_removed(tmp_path: Path) -> None:
    """Snakemake looks at the files alone."""
    old = [Task(name=name, command=("milan", name)) for name in "ab"]
    for name, digest in digests(old).items():
        write_mark(tmp_path, name, digest)
    drop_stale_marks([old[0], Task(name="b", command=("milan", "other"))], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
