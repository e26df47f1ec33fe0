"""`probe --dense`: mIoU by the nearest labelled patches, and the card of its protocol."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.stages.probe import command as probe
from milan_pipeline.stages.probe.command import Probe
from tests.support.pictures import write_ade_tree

PARTS = ("training", "validation")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ade")
    write_ade_tree(root, {"training": 9, "validation": 5}, size=(64, 48), first=1)
    return root


@pytest.fixture
def options(tree: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "encoder": "pixels:64", "dense": True, "classes": 3, "reduce_zero_label": True,
        "train": f"{tree}/images/training", "val": f"{tree}/images/validation",
        "out": str(tmp_path / "out"), "device": "cpu", "workers": 0,
    }  # fmt: skip


def scores(options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(options["out"]) / "scores.json").read_text())
    return found


def test_scores_and_their_protocol(options, capsys) -> None:
    probe.run(Probe(**options))
    found = scores(options)
    assert list(found["metrics"]) == ["knn-miou@30", "knn-macc@30", "knn-aacc@30"]
    assert found["metrics"]["knn-miou@30"] > 80
    assert (found["train"], found["val"], found["skipped"]) == (9, 5, 0)
    assert len(found["iou"]) == found["classes_in_mean"] == 3
    card = found["protocol"]
    assert card["resolution"] == card["masks_scored_at"] == "64 x 64 pixels"
    assert card["ignored"] == [255, 0]
    assert (card["neighbours"], card["temperature"]) == (30, 0.02)
    with pytest.raises(ConfigError, match=r"--temperature 0 must be above 0; give 0\.02"):
        Probe(**options | {"temperature": 0})
    images = (Path(options["out"]) / "images.txt").read_text().splitlines()
    assert (len(images), images == sorted(images)) == (5, True)
    assert images[0].endswith(".jpg")
    assert card["patches_in_memory"] <= 9 * 64
    head, row, sure = capsys.readouterr().out.splitlines()
    assert "knn-miou@30 %" in head
    assert row.split()[0] == "pixels:64"
    low, high = found["intervals"]["knn-miou@30"]
    assert low <= found["metrics"]["knn-miou@30"] <= high
    assert f"{low:.1f}\u2013{high:.1f}" in sure


def test_it_is_done_once_and_not_mixed_with_other_scores(options, capsys) -> None:
    probe.dry_run(Probe(**options))
    said = capsys.readouterr().out
    assert "images to encode: 9 to learn from, 5 to score on" in said
    assert "about 3180 (3.18 kB)" in said  # 180 bytes are counts of 3 classes of 5 images
    probe.run(Probe(**options))
    capsys.readouterr()
    for again in (probe.run, probe.dry_run):
        again(Probe(**options))
        assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(MismatchError, match="k is \\[30\\] there and \\[5\\] here"):
        probe.run(Probe(**options, k=(5,)))
    run = Probe(**options | {"encoder": "runs/a", "out": None})
    assert run.folder == "runs/a/probe-dense"


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"pool": "mean"}, "--pool changes nothing with --dense"),
     ({"linear": ("none",)}, "--linear changes nothing with --dense"),
     ({"dense": False}, "--classes changes nothing without --dense"),
     ({"classes": None}, "needs the number of classes in the masks; give --classes"),
     ({"k": (3, 5)}, "is not one number"), ({"memory": 0}, "--memory")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(options, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Probe(**options | changed)


def test_a_memory_smaller_than_the_images_is_refused(options) -> None:
    with pytest.raises(ConfigError, match="--memory 8 is fewer than the 9 images of --train"):
        probe.run(Probe(**options, memory=8))


def test_images_that_are_also_learnt_from_are_warned_of(options, tree, tmp_path, capsys) -> None:
    copied = Path(shutil.copytree(tree, tmp_path / "ade"))
    seen, image = (next(iter((copied / "images" / part).iterdir())) for part in PARTS)
    image.write_bytes(seen.read_bytes())
    places = {"train": f"{copied}/images/training", "val": f"{copied}/images/validation"}
    probe.dry_run(Probe(**options | places))
    assert "1 of the 5 images of --val that were compared are also in" in capsys.readouterr().err
    probe.dry_run(Probe(**options | places | {"val": places["train"]}))
    assert "--val has the images of --train" in capsys.readouterr().err


def test_scores_depend_on_the_options_that_are_used_alone(options, tmp_path) -> None:
    probe.run(Probe(**options))
    content = scores(options)["content"]
    assert content["memory"] == 100_000
    assert not {"pool", "linear", "sweep_steps"} & set(content)


def test_a_class_that_no_kept_patch_holds_is_named(options, capsys) -> None:
    probe.run(Probe(**options | {"classes": 5, "memory": 18}))
    said = capsys.readouterr().err
    assert "holds the classes [3, 4], which can never be answered" in said
    assert "--k 30 is more than the 18 patches that are kept, all of which vote" in said
