"""Nodes whose clocks differ: what they write together is what one writes."""

import os
import time

from milan_pipeline.storage.leftovers import temporary_name
from tests.faults.campaign import COUNTS
from tests.faults.file_systems import every_stage
from tests.faults.file_systems.campaign import clear
from tests.faults.sameness import difference

DAY = 86400
AHEAD, BEHIND = f"clock {2 * DAY}", f"clock -{2 * DAY}"


def _count(kind: str, problem: str) -> None:
    count = COUNTS[f"clocks that differ, {kind}"]
    count.tried += 1
    if problem:
        count.fail(kind, problem, silent=True)
    else:
        count.harmless += 1
    count.require_none_failed()


def test_parts_of_an_extraction(small) -> None:
    """One node is days ahead, one days behind, and a third asks how far they are."""
    stage, out = every_stage.EXTRACT, small.root / "parts"
    words = stage.words(small, out)
    for rule, more in (
        (AHEAD, ["--init"]),
        (BEHIND, ["--part", "0/2"]),
        (AHEAD, ["--part", "1/2"]),
    ):
        outcome = small.disk.run([*words, *more], rule)
        assert outcome.code == 0, outcome.said
        status = small.disk.run(["status", out], BEHIND)
        assert status.code == 0, status.said
    assert "done" in status.said
    _count("extract-targets in parts", difference(stage.outcome(out, ""), small.outcome(stage)))
    clear(out)


def test_what_others_write_now_is_not_taken_for_left_over(small) -> None:
    """Files that killed runs left are deleted by the clock of the disk."""
    stage, out = every_stage.PACK_IMAGES, small.root / "leftovers"
    out.mkdir()
    new, old = (out / temporary_name() for _ in range(2))
    for path, ago in ((new, 0), (old, DAY)):
        path.touch()
        os.utime(path, (time.time() + 60 - ago,) * 2)
    outcome = small.disk.run(stage.words(small, out), AHEAD)
    assert outcome.code == 0, outcome.said
    assert new.exists()
    assert not old.exists()
    clear(out)


def test_a_run_that_goes_on_elsewhere(small) -> None:
    """It breaks off on a node whose clock is ahead, and ends on one whose clock is behind."""
    stage, out = every_stage.PRETRAIN, small.root / "elsewhere"
    words = stage.words(small, out)
    broken = small.disk.run(words, AHEAD, f"EIO create {out}/checkpoints/*08* 1 all")
    assert broken.code == 1, broken.said
    done = small.disk.run(words, BEHIND)
    assert done.code == 0, done.said
    _count("pretrain", difference(stage.outcome(out, done.said), small.outcome(stage)))
    clear(out)
