"""Disks that do not tell capital letters apart, and names that are not UTF-8."""

import json
import os
import shutil
from pathlib import Path

import pytest

from milan_pipeline.shards.manifest import load_manifest
from tests.faults.campaign import COUNTS, SCALE
from tests.faults.file_systems import every_stage
from tests.faults.file_systems.campaign import clear, disturb_by
from tests.faults.file_systems.every_stage import STAGES

FOLDED = STAGES if SCALE == "whole" else (every_stage.EXTRACT, every_stage.FINETUNE)
OLD = os.fsdecode(b"\xe9")
"""An é of Latin-1."""


@pytest.mark.parametrize("stage", FOLDED, ids=[stage.name for stage in FOLDED])
def test_a_disk_that_does_not_tell_capitals_apart(stage, small) -> None:
    """Nothing that a stage writes meets another thing of its own."""
    disturb_by("capitals not told apart", f"fold {small.root}", stage, small)


def test_shards_whose_names_differ_by_capitals_are_refused(small) -> None:
    tar = small.undisturbed(every_stage.PACK_IMAGES) / "images-000000.tar"
    for name in ("a/one.tar", "b/One.tar"):
        (small.root / name).parent.mkdir()
        shutil.copy(tar, small.root / name)
    out = small.root / "capitals"
    words = ("index", small.root / "a" / "one.tar", small.root / "b" / "One.tar", "--out", out)
    outcome = small.disk.run(words, f"fold {small.root}")
    assert outcome.code == 1
    assert "one.tar and One.tar" in outcome.error


def _renamed(small, stage):
    """Give some of the pictures that a stage reads, and a class, names of other bytes."""
    if stage is every_stage.PACK_IMAGES:
        yield small.pictures / "ant" / "02.jpg", f"{OLD}.jpg"
        yield small.pictures / "bee", f"b{OLD}"
    if stage is every_stage.FINETUNE:
        for part in ("train", "val"):
            yield small.coloured / part / "green" / "000.jpg", f"{OLD}.jpg"
            yield small.coloured / part / "red", f"r{OLD}"
    if stage is every_stage.SEGMENT:
        for folder, kind in (
            (small.painted, "jpg"),
            (small.painted.with_name("annotations"), "png"),
        ):
            first = min((folder / "training").iterdir())
            yield first, f"{first.stem}{OLD}.{kind}"


def _used(out: Path) -> list[int]:
    """Count the pictures that a stage used."""
    if (out / "manifest.json").exists():
        return [load_manifest(str(out), kind="images").samples]
    scores = json.loads((out / "scores.json").read_text())
    return [scores["train"], scores["val"], *scores["unreadable"].values()]


NAMED = (every_stage.PACK_IMAGES, every_stage.FINETUNE, every_stage.SEGMENT)


@pytest.mark.parametrize("stage", NAMED, ids=[stage.name for stage in NAMED])
def test_pictures_and_classes_of_such_names(stage, small) -> None:
    """As many pictures are used, and a page of the output can be written."""
    out, right = small.root / "named", small.undisturbed(stage)
    count = COUNTS[f"names that are not UTF-8, {stage.name}"]
    count.tried += 1
    renamed = [(path.rename(path.with_name(name)), path) for path, name in _renamed(small, stage)]
    try:
        said = [
            small.disk.done(words)
            for words in (stage.words(small, out), ["inspect", out, "--html", f"{out}.html"])
        ]
    finally:
        for now, before in reversed(renamed):
            now.rename(before)
    used = _used(out)
    clear(out)
    if used == _used(right):
        count.harmless += 1
    else:
        count.fail(stage.name, f"{used} pictures instead of {_used(right)}: {said}", silent=True)
    count.require_none_failed()
