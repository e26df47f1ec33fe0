"""How far an extraction is, told from a store in every state that a unit can be in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.provenance.progress_reports import DEAD_AFTER
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.provenance.reporter import Reporter
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.targets.layout import create_root
from milan_pipeline.targets.status import Status, read_status
from milan_pipeline.targets.unit_list import extent_of, list_units
from milan_pipeline.targets.units import Mark, Unit, revoked
from tests.support.processes import elsewhere

IDENTITY = {
    "teacher": {"name": "ViT-B-16", "precision": "fp32", "grid": [2, 2], "width": 8},
    "preprocessing": {},
    "view_policy": {},
    "codec": {"name": "float16"},
}
NOW = 1_000_000.0
SHARDS = tuple(
    Shard(name=f"x-{number}.tar", samples=10, bytes=1, sha256=f"{number}", index_sha256="")
    for number in range(4)
)
MANIFEST = Manifest(kind="images", folder=".", shards=SHARDS)
UNITS = list_units(MANIFEST, 2)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a root and a record of two views of four shards, and nothing in it."""
    create_root(str(tmp_path), IDENTITY)
    record = {
        "state": "running", "started": "2020-01-01T00:00:00Z",
        "content": {}, "inputs": {}, "config": {},
        "extent": extent_of(MANIFEST, 2),
    }  # fmt: skip
    (tmp_path / "extract-targets.json").write_bytes(record_bytes(record))
    return tmp_path


def put(store: Path, unit: Unit, **changes: Any) -> None:
    mark = Mark(
        shard=unit.shard.name, sha256=unit.shard.sha256, identity_hash=content_hash(IDENTITY),
        view=unit.view, n=9, skipped=[{"key": "k", "reason": "cannot be decoded (it ends)"}],
        objects={},
    )  # fmt: skip
    path = store / unit.mark_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Mark(**(vars(mark) | changes)).to_bytes())


REPORTERS: list[Reporter] = []  # whose threads write


def report(store: Path, name: str, at: float = NOW) -> tuple[Reporter, Callable[[float], None]]:
    """Start a report at a time; the function sets its clock."""
    times = [at]
    REPORTERS.append(Reporter(str(store), name, units=4, clock=lambda: times[-1]))
    return REPORTERS[-1], times.append


def status_of(store: Path) -> Status:
    for reporter in REPORTERS:
        reporter.wait()
    return read_status(str(store), now=NOW)


def counts(status: Status, view: int) -> list[int]:
    found = status.views[f"view-0{view}"]
    return [found[state] for state in ("done", "running", "failed", "stale", "missing")]


def test_a_new_store(store: Path) -> None:
    status = status_of(store)
    assert (status.state, counts(status, 0), counts(status, 1)) == (
        "left",
        [0, 0, 0, 0, 4],
        [0, 0, 0, 0, 4],
    )
    assert (status.images_left, status.seconds_left, status.targets) == (80, None, 0)


def test_each_unit_is_counted_once_by_what_is_known_last(store: Path) -> None:
    for unit in (UNITS[0], UNITS[4]):
        put(store, unit)
    put(store, UNITS[1], sha256="old")
    put(store, UNITS[5], identity_hash="other")
    (store / UNITS[6].mark_path).write_bytes(revoked(UNITS[6]).to_bytes())
    first, _ = report(store, "part-000-of-002")
    first.begin(UNITS[2].path)
    second, _ = report(store, "part-001-of-002")
    for unit in (UNITS[0], UNITS[3], UNITS[2]):  # the first is done by now, the last in hand
        second.begin(unit.path)
        second.fail("it is damaged")
    status = status_of(store)
    assert counts(status, 0) == [1, 1, 1, 1, 0]
    assert counts(status, 1) == [1, 0, 0, 2, 1]
    assert status.count("done") == 2
    assert status.failed == {UNITS[3].path: "it is damaged"}
    assert status.stale == {
        "view-00/x-1": "its image shard has changed",
        "view-01/x-1": "it was extracted with other parameters",
        "view-01/x-2": "its mark is revoked: it was, or is, being written over",
    }
    assert (status.images_left, status.targets) == (60, 18)


def test_the_ledger_and_the_bytes(store: Path) -> None:
    for unit in UNITS[:2]:
        put(store, unit)
    skipped = [{"key": str(number), "reason": "the file is empty"} for number in range(9)]
    put(store, UNITS[2], n=1, skipped=skipped)
    status = status_of(store)
    assert status.skipped == {"the file is empty": 9, "cannot be decoded": 2}
    assert status.first_skipped == [
        "x-0.tar:k (cannot be decoded (it ends))",
        "x-1.tar:k (cannot be decoded (it ends))",
        *(f"x-2.tar:{number} (the file is empty)" for number in range(3)),
    ]
    # Box, flip, digest, prior of 4 patches, float16 codes of 5 tokens.
    assert status.bytes == 19 * (16 + 1 + 8 + 16 + 2 * 5 * 8)


def test_speed_is_that_of_all_at_work(store: Path) -> None:
    for number, images in ((0, 40), (1, 80)):
        reporter, tick = report(store, f"part-00{number}-of-003", NOW - 40)
        reporter.begin(UNITS[number].path)
        tick(NOW)
        reporter.images(images)
    done, tick = report(store, "part-002-of-003", NOW - 40)
    done.begin(UNITS[2].path)
    tick(NOW)
    done.images(400)
    done.end(UNITS[2].path)
    done.close("done")
    status = status_of(store)
    assert (status.images_per_second, status.images_per_second_on_average) == (3, 3)
    assert status.seconds_left == pytest.approx(80 / 3, abs=0.1)
    assert [worker.state for worker in status.processes] == ["running", "running", "done"]


def test_units_of_dead_processes_are_not_running(store: Path) -> None:
    for name, ago in (("a", DEAD_AFTER), ("b", DEAD_AFTER + 1)):
        reporter, _ = report(store, name, NOW - ago)
        reporter.begin(UNITS["ab".index(name)].path)
        reporter.wait()
        elsewhere(store / f"progress/{name}.json")
    status = status_of(store)
    assert [process.state for process in status.processes] == ["running", "dead"]
    assert (status.state, counts(status, 0)) == ("running", [0, 1, 0, 0, 3])


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no target store"):
        status_of(tmp_path)
    create_root(str(tmp_path), IDENTITY)
    with pytest.raises(MissingDataError, match=r"extract-targets\.json does not exist"):
        status_of(tmp_path)
