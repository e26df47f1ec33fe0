"""A study: which commands it has and what they share, how its YAML is read, what is reported."""

import dataclasses
import itertools
import json
import re
from graphlib import TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.per_image import ANSWERS, answers_table, npy
from milan_pipeline.evaluate.scores_file import Result, write_scores
from tests.support.cli import configured
from workflows.study.__main__ import main
from workflows.study.mark import write_mark
from workflows.study.pairs import pairs_of
from workflows.study.plots import curves_of
from workflows.study.reading import read_study
from workflows.study.report import report
from workflows.study.results import Results, read_results, table_of
from workflows.study.spec import Arm, Study
from workflows.study.task_graph import Task, digests, done_tasks, locked
from workflows.study.tasks import scores_folder, study_tasks

FOLDER = Path(__file__).parents[2] / "workflows" / "study"
STUDIES = sorted(FOLDER.glob("*.yaml"))
OUT = Path("out")
SMALL = """
title: A small study
images: {train: photos/train, test: photos/test}
teacher: local-dir:clip
options: {pretrain: {depth: 2, batch_size: 8}, probe: {linear: [logistic]}}
views: [1, each epoch]
codecs: {float16: [1, each epoch], "rotation:bits=2": [4]}
epochs: [3, 6]
seeds: [0, 1]
students:
  MILAN: {}
  pixels: {options: {target: pixels}, epochs: [3]}
measures:
  k-NN: {stage: probe, metric: knn@20}
  linear: {stage: probe, metric: linear}
  few labels: {stage: finetune, metric: top1, options: {label-fraction: 0.1},
    only: ["MILAN, 1 view, float16, 3 epochs", "MILAN, 6 views, float16, 6 epochs", random],
    given: {random: {pool: cls}}}
pairs: [["MILAN, 4 views, rotation:bits=2, 6 epochs", pixels]]
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "study.yaml").write_text(SMALL)
    return read_study(tmp_path / "study.yaml")


def by_name(study: Study) -> dict[str, Task]:
    return {task.name: task for task in study_tasks(study, OUT)}


def value(task: Task, option: str) -> str:
    return task.command[task.command.index(option) + 1]


def test_rows_are_named_by_what_tells_them_apart(study: Study) -> None:
    assert list(study.rows) == [
        "MILAN, 1 view, float16, 3 epochs", "MILAN, 3 views, float16, 3 epochs",
        "MILAN, 4 views, rotation:bits=2, 3 epochs", "MILAN, 1 view, float16, 6 epochs",
        "MILAN, 6 views, float16, 6 epochs", "MILAN, 4 views, rotation:bits=2, 6 epochs",
        "pixels", "random", "teacher",
    ]  # fmt: skip
    assert study.rows["pixels"] == Arm(student="pixels", epochs=3)


def test_every_need_exists_and_none_is_circular(study: Study) -> None:
    tasks = by_name(study)
    assert {need for task in tasks.values() for need in task.needs} <= set(tasks)
    assert list(TopologicalSorter({t.name: t.needs for t in tasks.values()}).static_order())


def test_what_can_be_shared_is_made_once(study: Study) -> None:
    tasks = by_name(study)
    made = [name for name in tasks if name.startswith(("pack", "extract"))]
    assert made == [
        "pack-train", "pack-test", "extract-targets", "pack-targets-float16",
        "pack-targets-rotation-bits=2",
    ]  # fmt: skip
    assert value(tasks["extract-targets"], "--views") == "6"  # the most that any arm trains on
    packed = tasks["pack-targets-rotation-bits=2"]
    assert (value(packed, "--codec"), value(packed, "--views")) == ("rotation:bits=2", "4")
    assert "--codec" not in tasks["pack-targets-float16"].command
    trained = [task for name, task in tasks.items() if name.startswith("pretrain")]
    assert len(trained) == 2 * 7  # seeds, and arms
    probes = [name for name in tasks if name.startswith("probe")]
    assert len(probes) == 2 * 9  # k-NN and linear are one command
    assert len(tasks) == 5 + 14 + 18 + 2 * 3  # of few labels, two arms and random weights
    drawn = next(t for n, t in tasks.items() if n.startswith("probe") and n.endswith("random-1"))
    assert drawn.needs[0] == "pretrain-milan-1v-float16-3e-1"
    assert value(drawn, "--encoder") == "out/runs/milan-1v-float16-3e/seed-1"
    assert "--random-init" in drawn.command


def test_arms_differ_in_what_they_are_named_by_alone(study: Study) -> None:
    tasks = by_name(study)
    one, other = (tasks[f"pretrain-milan-{n}v-float16-{n and 6}e-0"].command for n in (1, 6))
    assert [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]] == [
        ("out/runs/milan-1v-float16-6e/seed-0", "out/runs/milan-6v-float16-6e/seed-0"),
        ("1", "6"),
    ]
    coded = tasks["pretrain-milan-4v-rotation-bits=2-6e-0"]
    assert value(coded, "--targets") == "out/target-shards/rotation-bits=2"
    assert coded.needs == ("pack-train", "pack-targets-rotation-bits=2")
    pixels = tasks["pretrain-pixels-3e-0"]
    assert (value(pixels, "--target"), pixels.needs) == ("pixels", ("pack-train",))
    assert "--views" not in pixels.command


def test_a_students_options_are_its_own(study: Study) -> None:
    folders = [
        scores_folder(study, OUT, "few labels", row, 0)
        for row in (study.arms[0], "random", study.arms[-1])
    ]
    assert folders[0] is not None
    assert folders[1] is not None
    assert folders[0].name != folders[1].name  # other options
    assert folders[2] is None  # pixels are not measured
    tasks = by_name(study)
    few = next(t for n, t in tasks.items() if n.startswith("finetune") and n.endswith("random-0"))
    assert value(few, "--pool") == "cls"


def test_each_of_several_teachers_runs_once_and_a_student_learns_from_those_it_names(
    tmp_path: Path,
) -> None:
    teachers = {"clip": "local-dir:clip", "dino": "timm:vit_x", "old": "run:runs/old"}
    changes = {
        "teacher": teachers,
        "students": {
            "all": {}, "one": {"teachers": ["dino"]}, "two": {"teachers": ["old", "clip"]},
        },
        "codecs": ["float16"], "views": [2], "epochs": [3], "seeds": [0], "pairs": [],
        "measures": {"k-NN": {"stage": "probe", "metric": "knn@20"}},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(yaml.safe_load(SMALL) | changes))
    study = read_study(tmp_path / "study.yaml")
    tasks = by_name(study)
    for name, teacher in teachers.items():
        assert value(tasks[f"extract-targets-{name}"], "--teacher") == teacher
        store = value(tasks[f"extract-targets-{name}"], "--out")
        assert value(tasks[f"pack-targets-{name}-float16"], "--targets") == store
    given = {
        student: [
            after
            for word, after in itertools.pairwise(
                tasks[f"pretrain-{student}-2v-float16-3e-0"].command
            )
            if word == "--targets"
        ]
        for student in ("all", "one", "two")
    }
    shards = {
        n: value(tasks[f"pack-targets-{n}-float16"], "--out") for n in ("clip", "dino", "old")
    }
    assert len(set(shards.values())) == 3
    assert given["all"] == [f"{name}={folder}" for name, folder in shards.items()]
    assert given["one"] == [shards["dino"]]
    assert given["two"] == [f"{name}={shards[name]}" for name in ("clip", "old")]
    assert tasks["pretrain-one-2v-float16-3e-0"].needs == (
        "pack-train",
        "pack-targets-dino-float16",
    )
    rows = {"teacher-clip": "open_clip:local-dir:clip", "teacher-dino": "timm:vit_x"}
    rows["teacher-old"] = "runs/old"
    assert list(study.rows) == ["all", "one", "two", "random", *rows]
    for row, encoder in rows.items():
        (probe,) = [task for name, task in tasks.items() if name.endswith(f"-{row}-0")]
        assert value(probe, "--encoder") == encoder


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_here_have_commands_that_the_stages_take(path: Path) -> None:
    study = read_study(path)
    assert study.notes or path.stem == "drawn"
    seen = set()
    for task in study_tasks(dataclasses.replace(study, seeds=[0]), OUT):
        stage, *words = task.command[3:]
        kind = (task.command[2], stage, *task.name.split("-")[:2])
        if task.command[2] == "milan_pipeline" and kind not in seen:
            seen.add(kind)
            configured(stage, *words)
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("change", "says"),
    [({"images": {"train": "a"}}, "images need either train and test, or scenes"),
     ({"seeds": [1, 1]}, "is not one or more different numbers"),
     ({"views": ["all"]}, "views 'all' is neither a number nor 'each epoch'"),
     ({"baselines": ["best"]}, "baseline 'best' is unknown"),
     ({"pairs": [["pixels", "nobody"]]}, "pairs name 'nobody', which is no row"),
     ({"students": {"MILAN": {}, "milan": {}}, "pairs": [], "measures": {}}, "are one folder"),
     ({"measures": {"x": {"stage": "probe", "metric": "linear", "only": ["y"]}}}, "no student"),
     ({"students": {"MILAN": {"view": [1]}}, "pairs": [], "measures": {}}, "no field 'view'"),
     ({"teachers": "x"}, "there is no field 'teachers'"),
     ({"teacher": {"a": "x"}, "students": {"MILAN": {"teachers": ["b"]}}, "pairs": []},
      "student 'MILAN': teachers has 'b'; choose of a"),
     ({"students": {"p": {"options": {"target": "pixels"}, "teachers": ["a"]}}, "pairs": []},
      "student 'p' learns no targets; leave its teachers out")],
)  # fmt: skip
def test_what_is_no_study_is_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(SMALL) | change))
    with pytest.raises(ConfigError, match=says):
        read_study(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"options": {"pretrian": {"depth": 9}}}, "options has 'pretrian', which is no stage"),
     ({"options": {"pretrain": {"epochs": 7}}}, "options of pretrain: the option 'epochs' has no"),
     ({"students": {"MILAN": {"options": {"views": 3}}}, "pairs": []}, "student 'MILAN': the opt"),
     ({"measures": {"x": {"stage": "probe", "metric": "linear", "options": {"seed": 1}}}}, "'x':"),
     ({"names": {"MILLAN": "ours"}, "pairs": []}, "names has 'MILLAN', which is no student"),
     ({"teacher": {"a": "x", "b": "y"}, "names": {"teacher": "CLIP"}, "pairs": []},
      "names has 'teacher', which is no student"),
     ({"teacher": {"a b": "x", "A-B": "y"}, "pairs": []}, "names that differ in letters or dig"),
     ({"codecs": {"float16": ["each_epoch"]}, "pairs": []}, "views 'each_epoch' is neither"),
     ({"codecs": {"float16": [0]}, "pairs": []}, "views 0 is neither"),
     ({"measures": {"x": {"stage": "probe", "metric": "knn@31"}}}, "give knn@10, or the option k"),
     ({"measures": {"x": {"stage": "segment", "metric": "top1"}}}, "has no metric 'top1'")],
)  # fmt: skip
def test_what_would_have_no_effect_or_no_score_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    path = tmp_path / "study.yaml"
    small = yaml.safe_load(SMALL)
    for measure in small["measures"].values():
        measure.pop("only", None)
    path.write_text(yaml.safe_dump(small | change))
    with pytest.raises(ConfigError, match=says):
        read_study(path)


IMAGES = 400


def write_made_up(study: Study, out: Path) -> None:
    """Write answers: rows are right about more images from row to row, each seed about one more."""
    labels = np.arange(IMAGES) % 10
    for level, row in enumerate(study.rows.values()):
        for seed in study.seeds:
            folder = scores_folder(study, out, "k-NN", row, seed)
            assert folder is not None
            right = np.random.default_rng(0).permutation(IMAGES) < 100 + 10 * level + 4 * seed
            answers = {"knn": np.where(right, labels, -1), "linear": labels}
            folder.mkdir(parents=True)
            (folder / ANSWERS).write_bytes(npy(answers_table(labels, answers)))
            metrics = {"knn@20": 100 * float(right.mean()), "linear": 100.0}
            write_scores(
                Result(
                    folder=str(folder), stage="probe", encoder="x", random_init=False, seed=seed,
                    metrics=metrics, content={}, inputs={},
                )
            )  # fmt: skip
    tasks = study_tasks(study, out)
    (out / "done").mkdir()
    for name, digest in digests(tasks).items():
        write_mark(out / "done", name, digest, 2.0, 1.0)


def read(study: Study, out: Path) -> Results:
    """Read what is there and made as the study says."""
    done = done_tasks(study_tasks(study, out), out / "done")
    results, left_out = read_results(study, out, {task.output for task in done})
    assert left_out == []
    return results


def test_the_report_has_means_spreads_and_pairs_of_what_is_there(
    study: Study, tmp_path: Path
) -> None:
    write_made_up(study, tmp_path)
    marks, tasks = tmp_path / "done", study_tasks(study, tmp_path)
    text = report(study, tmp_path, marks=marks, tasks=tasks)
    lines = text.splitlines()
    assert lines[0] == "# A small study"
    assert "| MILAN, 1 view, float16, 3 epochs | 25.5 ± 0.7 | 100.0 | \u2013 |" in lines
    found = json.loads((tmp_path / "study.json").read_text())
    first = found["rows"][0]
    assert (first["student"], first["codec"], first["views"], first["epochs"]) == (
        "MILAN", "float16", 1, 3,
    )  # fmt: skip
    assert first["scores"]["k-NN"]["values"] == {"0": 25.0, "1": 26.0}
    assert "few labels" not in first["scores"]
    (knn, linear) = found["pairs"]
    assert knn["mean"] == pytest.approx(-2.5)  # 10 of 400 images less
    low, high = knn["interval"]
    assert low < -2.5 < high < 0
    assert linear["interval"] == [0, 0]
    assert any(line.endswith("no difference is shown") for line in lines)
    page = (tmp_path / "study.html").read_text()
    assert page.count("<svg") == 2
    assert f"18 of {len(tasks)}" in page  # of those whose output is there
    assert ">36<" in page  # seconds
    assert ">18<" in page  # of CPU time
    for name in ("k-nn", "linear"):
        picture = (tmp_path / "plots" / f"{name}.svg").read_text()
        words = [element.text for element in ET.fromstring(picture).iter()]  # noqa: S314
        assert {"MILAN, float16, 3 epochs", "pixels", "random", "views"} <= set(words)
        assert set(re.findall(r"stroke: ([^;\"]+)", picture)) >= {"#0072b2", "#1b1c1e"}
        assert "var(" not in picture


def test_what_is_there_is_reported_while_the_study_goes_on(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_made_up(study, tmp_path)
    words = [str(tmp_path / "study.yaml"), "--out", str(tmp_path)]
    with locked(tmp_path):
        assert main([*words, "--seeds", "0", "1", "2", "--report"]) == 0
    cell = "25.5 ± 0.7 (2 of 3 seeds)"
    assert f"| MILAN, 1 view, float16, 3 epochs | {cell} |" in capsys.readouterr().out
    assert f">{cell}<" in (tmp_path / "study.html").read_text()


def test_scores_of_another_study_are_left_out_and_damaged_marks_are_none(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's folder does not name its options: only a mark tells what made its scores."""
    write_made_up(study, tmp_path)
    marks = tmp_path / "done"
    changed = dataclasses.replace(study, options={"pretrain": {"depth": 9}} | study.options)
    changed.options["pretrain"] = {"depth": 9}
    text = report(changed, tmp_path, marks=marks, tasks=study_tasks(changed, tmp_path))
    assert "| MILAN, 1 view, float16, 3 epochs | \u2013 |" in text
    assert "note: 32 scores are not of the commands as they are now" in capsys.readouterr().err
    for path in marks.iterdir():
        path.write_text("damaged")
    text = report(study, tmp_path, marks=marks, tasks=study_tasks(study, tmp_path))
    assert "| random | \u2013 |" in text


def test_a_metric_that_scores_lack_is_an_empty_cell(study: Study, tmp_path: Path) -> None:
    write_made_up(study, tmp_path)
    study.measures["k-NN"] = dataclasses.replace(study.measures["k-NN"], metric="knn@100")
    done = done_tasks(study_tasks(study, tmp_path), tmp_path / "done")
    results, left_out = read_results(study, tmp_path, {task.output for task in done})
    assert left_out == ["measure 'k-NN': scores lack 'knn@100'"]
    assert str(table_of(study, results)["random"]["k-NN"]) == "\u2013"
    assert len(pairs_of(study, results)) == 1


def test_a_pair_without_answers_has_no_interval(study: Study, tmp_path: Path) -> None:
    write_made_up(study, tmp_path)
    for path in tmp_path.glob(f"scores/pixels*/**/{ANSWERS}"):
        path.unlink()
    (knn, _) = pairs_of(study, read(study, tmp_path))
    assert knn.interval is None
    assert "no interval" in str(knn)


def test_curves_join_arms_that_differ_in_views_alone(study: Study, tmp_path: Path) -> None:
    write_made_up(study, tmp_path)
    cells = {row: of["k-NN"] for row, of in table_of(study, read(study, tmp_path)).items()}
    curves = curves_of(study, cells)
    assert {label: [views for views, _ in points] for label, points in curves.items()} == {
        "MILAN, float16, 3 epochs": [1, 3],
        "MILAN, rotation:bits=2, 3 epochs": [4],
        "MILAN, float16, 6 epochs": [1, 6],
        "MILAN, rotation:bits=2, 6 epochs": [4],
    }


def test_the_command_lists_what_is_left_and_leaves_columns_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(SMALL)
    words = [str(path), "--out", str(tmp_path / "out"), "--dry-run", "--seeds", "3"]
    assert main([*words, "--leave-out", "few labels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "21 of 21 to do"  # 5 shared, 7 runs, 9 probes
    assert "pretrain-pixels-3e-3" in lines
    assert not (tmp_path / "out").exists()
    assert main([*words, "--leave-out", "many labels"]) == 1
    assert "'many labels' is no measure" in capsys.readouterr().err
