"""The study's commands, how they are run, and what is told of their scores."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from milan_pipeline.evaluate.scores_file import Result, write_scores
from workflows.demo.study_report import COLUMNS, Cell, check, markdown, read_table, report
from workflows.demo.study_tasks import ENCODERS, FULL, QUICK, folder_of, study_tasks
from workflows.demo.task_graph import Task, TaskError, locked, run_tasks

ROOT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)


def _value(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1]


def _python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_every_need_exists_and_none_is_circular() -> None:
    tasks = study_tasks(Path("out"), seeds=SEEDS, size=FULL)
    names = {task.name for task in tasks}
    assert len(names) == len(tasks)
    assert {need for task in tasks for need in task.needs} <= names
    order = list(TopologicalSorter({task.name: task.needs for task in tasks}).static_order())
    assert order.index("pack-targets") < order.index("pretrain-milan-2")
    assert order.index("pretrain-milan-2") < order.index("finetune-10-random-2")


def test_seeds_multiply_all_but_what_they_share() -> None:
    counts = {n: len(study_tasks(Path("out"), seeds=SEEDS[:n], size=FULL)) for n in (1, 2, 3)}
    evaluations = len(ENCODERS) * (len(FULL.finetune) + 2)
    assert counts[2] - counts[1] == counts[3] - counts[2] == 2 + evaluations
    assert counts[1] == 5 + 2 + evaluations


def test_options_can_be_tuned_on_other_scenes() -> None:
    scenes = [study_tasks(Path("o"), seeds=(0,), size=QUICK, scenes_seed=n)[0] for n in (0, 2)]
    assert [_value(task.command, "--seed") for task in scenes] == ["0", "2"]


def test_encoders_of_a_seed_are_trained_alike() -> None:
    """Commands of one measure and seed differ in the encoder, its name and the folder alone."""
    tasks = {task.name: task for task in study_tasks(Path("out"), seeds=SEEDS, size=FULL)}
    for measure in (*(training.name for training in FULL.finetune), "segment", "probe"):
        alike = set()
        for encoder in ENCODERS:
            command = tasks[f"{measure}-{encoder.lower()}-1"].command
            assert _value(command, "--label") == encoder
            assert _value(command, "--seed") == "1"
            if measure.startswith("finetune"):
                assert _value(command, "--pool") == ("cls" if encoder == "teacher" else "mean")
            differing = {"--random-init", "cls", "mean"} | {
                _value(command, option) for option in ("--encoder", "--label", "--out")
            }
            alike.add(tuple(word for word in command if word not in differing))
        assert len(alike) == 1
    objectives = [tasks[f"pretrain-{name}-1"].command for name in ("milan", "pixels")]
    for option in ("--images", "--image-size", "--epochs", "--seed", "--config"):
        assert len({_value(command, option) for command in objectives}) == 1


def test_tasks_run_after_what_they_need_and_add_to_their_logs(tmp_path: Path) -> None:
    one, two = (tmp_path / name for name in ("one", "two"))
    tasks = [
        Task(name="second", command=_python(f"open({str(one)!r}); open({str(two)!r}, 'w')"),
             needs=("first",)),
        Task(name="first", command=_python(f"print('hello'); open({str(one)!r}, 'w')")),
    ]  # fmt: skip
    for _ in range(2):
        run_tasks(tasks, logs=tmp_path / "logs", jobs=2)
    assert two.exists()
    assert (tmp_path / "logs" / "first.log").read_text().split() == ["hello", "hello"]


def test_of_those_that_may_start_the_first_in_the_list_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = {"b": ("a",), "c": ("a",), "d": (), "a": ()}
    tasks = [Task(name=name, command=_python("pass"), needs=needs[name]) for name in "abcd"]
    run_tasks(tasks, logs=tmp_path / "logs", jobs=1)
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "a:", "b:", "c:", "d:",
    ]  # fmt: skip


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
        run_tasks(tasks, logs=tmp_path / "logs", jobs=2)
    assert not (tmp_path / "logs" / "after.log").exists()
    assert capsys.readouterr().out == ""


def test_circles_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    circle = [Task(name=a, command=_python("pass"), needs=(b,)) for a, b in ("xy", "yx")]
    with pytest.raises(CycleError):
        run_tasks(circle, logs=tmp_path / "logs", jobs=1)
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


def _made_up(out: Path, *, milan: float, tuned: float = 5.0) -> None:
    """Scores of three seeds, one per cent apart; the teacher's k-NN is the same for each.

    Fine-tuning with all labels is ahead of everything else by `tuned`.
    """
    level = {"random": 10.0, "pixels": 40.0, "MILAN": milan, "teacher": 90.0}
    for seed in SEEDS:
        for encoder in ENCODERS:
            for folder in {folder for folder, _ in COLUMNS.values()}:
                metrics = {
                    metric: level[encoder]
                    + seed * (encoder != "teacher" or metric != "knn@20")
                    + tuned * (folder == "finetune-100")
                    for place, metric in COLUMNS.values()
                    if place == folder
                }
                result = Result(
                    folder=str(folder_of(out, seed, encoder) / folder),
                    stage=folder.partition("-")[0],
                    encoder=encoder,
                    random_init=encoder == "random",
                    seed=seed,
                    metrics=metrics,
                    content={},
                    inputs={},
                )
                write_scores(result)


def test_the_report_has_means_and_spreads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _made_up(tmp_path, milan=60.0)
    assert report(tmp_path, SEEDS)
    text = (tmp_path / "study.md").read_text()
    assert text == capsys.readouterr().out
    random = "| random weights |" + " 11.0 ± 1.0 |" * 5 + " 16.0 ± 1.0 | 11.0 ± 1.0 |"
    assert random in text.splitlines()
    teacher = next(line for line in text.splitlines() if line.startswith("| its teacher"))
    assert teacher.split(" | ")[1:3] == ["90.0", "91.0 ± 1.0"]
    found = json.loads((tmp_path / "study.json").read_text())
    assert found["table"]["MILAN"]["k-NN"] == {
        "mean": 61.0, "spread": 1.0, "values": [60.0, 61.0, 62.0],
    }  # fmt: skip
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_a_lead_within_the_spreads_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _made_up(tmp_path, milan=41.5)
    assert not report(tmp_path, SEEDS)
    assert capsys.readouterr().out.count("does not hold") == len(COLUMNS)


def test_fine_tuning_must_be_ahead_of_the_linear_classifiers_of_student_and_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _made_up(tmp_path, milan=60.0, tuned=1.9)
    assert not report(tmp_path, SEEDS)
    lines = [line for line in capsys.readouterr().out.splitlines() if "does not hold" in line]
    assert [line.split(":")[0] for line in lines] == ["- MILAN", "- teacher"]
    assert "100% fine-tuned is +1.9 from linear, both spreads together are 2.0" in lines[0]


def test_the_check_is_strict_and_one_seed_has_no_spread() -> None:
    below = Cell((40.0, 42.0))  # each spread is the square root of 2, both are 2.83
    assert check("a", Cell((43.0, 45.0)), "b", below).holds
    assert not check("a", Cell((42.8, 44.8)), "b", below).holds
    assert check("a", Cell((41.0,)), "b", Cell((40.0,))).holds
    assert not check("a", Cell((40.0,)), "b", Cell((40.0,))).holds
    table = {"MILAN": dict.fromkeys(COLUMNS, Cell((41.0,)))}
    assert "±" not in markdown(table, 1)


@pytest.mark.slow
def test_the_study_runs_goes_on_and_has_nothing_to_do(tmp_path: Path) -> None:
    """Every command at a tiny size; stopped once, then to the end, then once more."""
    out = tmp_path / "study"
    command = [sys.executable, "-m", "workflows.demo.study", str(out), "--quick", "--seeds", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as study:
        assert study.stdout is not None
        assert study.stdout.readline().startswith("[1/")
        study.send_signal(signal.SIGTERM)
    assert study.returncode == 75
    for _ in range(2):
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    table = read_table(out, (0,))
    # A few steps make three different encoders of one that is drawn at random.
    weights = {(cells["linear"], cells["linear, official"]) for cells in table.values()}
    assert len(weights) == len(ENCODERS)
    tasks = study_tasks(out, seeds=(0,), size=QUICK)
    logs = [(out / "logs" / f"{task.name}.log").read_text().splitlines() for task in tasks]
    assert all("nothing to do" in lines[-1] for lines in logs)
