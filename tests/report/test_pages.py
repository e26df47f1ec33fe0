"""Pages: self-contained, the same bytes each time, what comes from data is text."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError
from milan_pipeline.evaluate.intervals import wilson
from milan_pipeline.evaluate.per_image import answers_table, npy
from milan_pipeline.evaluate.scores_file import Result, write_scores
from milan_pipeline.images.budget import Skipped
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.report.inspection import inspect_places
from milan_pipeline.report.page import render
from milan_pipeline.report.pages import page_of
from tests.support.labelled import shards
from tests.support.pages import ReadPage, require_self_contained
from tests.support.pretrain import pretrain
from tests.support.stores import make_store

HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&-{:03d}".format


def made(*places: object, results=(), **changes) -> str:
    places_of = dict.fromkeys(("images", "targets", "originals"))
    options: dict[str, Any] = places_of | {"gallery": 5, "seed": 0} | changes
    options |= {name: str(options[name]) for name in places_of if options[name]}
    return render(page_of(inspect_places([str(place) for place in places], results), **options))


def scripts(page: ReadPage) -> list[str]:
    return [attributes.get("type", "own") for attributes in page.all("script")]


@pytest.fixture(scope="module")
def runs(
    image_shards: Path, target_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run that has ended, and one that differs in its masking and is not done."""
    folder = tmp_path_factory.mktemp("runs")
    pretrain(image_shards, target_shards, folder / "one", "--epochs", 2)
    pretrain(image_shards, target_shards, folder / "two", "--max-steps", 2, "--masking", "random")
    (folder / "two" / "encoder.safetensors").unlink()
    (folder / "two" / "encoder.json").unlink()
    state = {"state": "interrupted", "step": 2, "total_steps": 12}
    (folder / "two" / "state.json").write_text(json.dumps(state))
    return folder / "one", folder / "two"


def test_a_stores_page(target_store: Path, image_shards: Path) -> None:
    text = made(target_store, images=image_shards)
    page = require_self_contained(text)
    assert scripts(page) == ["application/json", "own"]
    thumbs = [found for found in page.all("button") if found.get("class") == "thumb"]
    assert len(thumbs) == 5
    assert text.count("data:image/jpeg") == 5
    for layer in ("prior", "colours", "mask-0.4", "mask-0.6", "mask-0.75", "mask-0.9"):
        assert page.values("data-layer").count(layer) == 5
    assert page.texts["h1"] == "targets.zarr"
    for wanted in ("Mask prior", "Norms of decoded targets", "Fidelity of the codec", "Ledger"):
        assert wanted in page.texts["h3"]
    assert text == made(target_store, images=image_shards)
    assert text != made(target_store, images=image_shards, seed=1)


def test_a_page_of_shards_without_pixels(target_shards: Path) -> None:
    text = made(target_shards, gallery=100)
    page = require_self_contained(text)
    assert "data:image/jpeg" not in text
    assert len(page.values("data-key")) == 48
    assert "No pixels were read" in page.texts["li"]


def test_a_page_of_images(image_shards: Path) -> None:
    text = made(image_shards, gallery=3)
    page = require_self_contained(text)
    assert text.count("data:image/jpeg") == 3
    assert scripts(page) == ["own"]


def test_the_page_of_images_has_classes_with_counts_and_names_under_pictures(tmp_path) -> None:
    place = shards(tmp_path / "labelled", 30, seed=1, classes=["ant", "bee", "cat"])
    page = require_self_contained(made(place, gallery=30))
    for name in ("ant", "bee", "cat"):
        assert page.texts["bdi"].count(name) == 10
        assert f"{name}1033.3%" in page.texts["td"]
    assert "3 classes, from 10 to 10 images." in page.texts["p"]
    unlabelled = shards(tmp_path / "plain", 6, seed=1, labelled=False)
    assert "Classes" not in require_self_contained(made(unlabelled)).texts["h2"]


def test_the_page_of_a_fine_tuned_run_has_its_curve_and_its_classes(runs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    label_N, answer_N = np.array([0] * 6 + [1] * 4), np.array([0] * 5 + [1] * 5)
    (run / "answers.npy").write_bytes(npy(answers_table(label_N, {"top1": answer_N})))
    given: dict[str, Any] = {"random_init": False, "seed": 0, "content": {}, "inputs": {}}
    given |= {"stage": "finetune", "encoder": "x", "metrics": {"top1": 90.0}}
    given |= {"intervals": {"top1": wilson(9, 10)}, "extras": {"class_names": ["ant", "bee"]}}
    write_scores(Result(folder=str(run), **given))
    rows = [{"step": n, "epoch": n / 6, "top1": 10.0 * n, "val": "v"} for n in (6, 9)]
    (run / "evaluations.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = require_self_contained(made(run))
    assert "Validation" in page.texts["h3"]
    assert "Validation over epochs: from 60 to 90." in page.texts["figcaption"]
    cells = page.texts["td"]
    assert "90.00%59.6\u201398.2" in cells
    assert "ant683.33%43.6\u201397.0" in cells
    assert "ant51bee04" in cells  # five ants are right, one was taken for a bee
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert f"{last['loss']:.4g}" in page.texts["dd"]


def test_hostile_keys_and_reasons_are_text(tmp_path: Path) -> None:
    skipped: tuple[Skipped, ...] = ({"key": HOSTILE(1), "reason": HOSTILE(2)},)
    store, images = make_store(tmp_path, images=6, side=2, key=HOSTILE, skipped=skipped)
    text = made(store, images=images, gallery=6)
    page = require_self_contained(text)
    assert scripts(page) == ["application/json", "own"]
    assert sorted(page.values("data-key")) == [HOSTILE(number) for number in range(6)]
    assert page.values("onerror") == []
    assert HOSTILE(2) in page.texts["dd"]
    shown = require_self_contained(made(images, gallery=6))
    assert HOSTILE(0) in shown.values("title")
    assert shown.values("onerror") == []


def test_a_runs_page(runs, image_shards: Path, target_store: Path, tmp_path: Path) -> None:
    run, _ = runs
    text = made(run, images=image_shards, targets=target_store)
    page = require_self_contained(text)
    for wanted in ("Loss", "Learning rate", "Throughput", "Waiting for data", "Memory"):
        assert wanted in page.texts["h3"]
    assert "Predictions against targets" in page.texts["h2"]
    assert text.count('class="five"') == 5
    assert "the same of the mean target" in page.texts["dt"]
    assert "The mean target of the other views" in page.texts["p"]
    assert "5 of 5 views are of image shards that the run was trained on" in page.texts["p"]


def test_held_out_views_are_told(runs, image_shards: Path, target_store: Path, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    other = make_store(tmp_path, images=4, side=4)
    record = json.loads((run / "config.json").read_text())
    record["config"]["images"] = other.images
    (run / "config.json").write_bytes(record_bytes(record))
    text = made(run, images=image_shards, targets=target_store)
    assert "Held out: none of these views" in text
    record["config"]["images"] = str(tmp_path / "gone")
    (run / "config.json").write_bytes(record_bytes(record))
    assert "Not known, as the images" in made(run, images=image_shards, targets=target_store)
    with pytest.raises(MismatchError, match=r"teacher\.width is 24 there and 64 here"):
        made(run, images=other.images, targets=other.store)


@pytest.mark.slow
def test_runs_share_their_axes(runs, image_shards: Path, target_shards: Path) -> None:
    text = made(*runs, images=image_shards, targets=target_shards)
    page = require_self_contained(text)
    assert "What the runs differ in" in page.texts["h2"]
    for cell in ("masking", "semantic", "random"):
        assert cell in page.texts["td"]
    assert page.texts["figcaption"].count("one from") == page.texts["figcaption"].count("two from")
    for series in ("--series-1", "--series-2"):
        assert text.count(f"stroke: var({series})") >= 5
    assert text.count('class="five"') == 10


def test_results_are_those_of_the_runs_weights(runs, tmp_path: Path) -> None:
    from milan_pipeline.encoders.load import fingerprint

    common: dict[str, Any] = {"stage": "probe", "random_init": False, "seed": 0, "content": {}}
    ours, others = {"encoder": fingerprint(str(runs[0]))}, {"encoder": "other"}
    for name, inputs, value in (("a", ours, 12.5), ("b", others, 99.5)):
        folder, metrics = str(tmp_path / name), {"linear": value}
        extras = {"protocol": {"crop": f"that of {name}"}}
        result = Result(
            folder=folder, encoder="x", metrics=metrics, inputs=inputs, extras=extras, **common
        )
        write_scores(result)
    page = require_self_contained(made(runs[0], results=(str(tmp_path),)))
    assert "12.50%" in page.texts["td"]
    assert "99.50%" not in page.texts["td"]
    lines = inspect_places([str(runs[0])], (str(tmp_path),)).lines
    assert any(line.endswith("crop: that of a") for line in lines)
    with pytest.raises(MissingDataError, match=r"holds no scores\.json"):
        inspect_places([str(runs[0])], (str(tmp_path / "none"),))


def test_a_name_is_no_mathematics(runs, tmp_path: Path) -> None:
    hostile = tmp_path / "_$x$<b>&"
    shutil.copytree(runs[0], hostile)
    page = require_self_contained(made(runs[0], hostile))
    assert "_$x$<b>& from" in page.texts["figcaption"]
    assert "$x$<b>&" in page.texts["text"]
    assert "b" not in page.tags


def test_what_cannot_be_shown_is_refused(
    runs, target_store: Path, image_shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="is for a run, not target store"):
        made(target_store, images=image_shards, targets=target_store)
    with pytest.raises(ConfigError, match="is no run, and only runs are compared"):
        made(runs[0], target_store)
    with pytest.raises(ConfigError, match="7 runs are more than a plot can tell apart"):
        made(*[runs[0]] * 7)
    with pytest.raises(MissingDataError, match=r"no target store .* and no run"):
        made(tmp_path)
    other = make_store(tmp_path, images=4, side=2, key="x{}".format)
    with pytest.raises(MissingDataError, match="has no image"):
        made(target_store, images=other.images)
