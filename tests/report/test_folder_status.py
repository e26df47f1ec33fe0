"""How far any output is: shards, runs, scores, and whatever lies below a folder."""

import json
from pathlib import Path

import pytest

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.provenance.reporter import Reporter
from milan_pipeline.provenance.run_state import write_state
from milan_pipeline.report.folder_status import FolderStatus, folder_status, is_finished
from milan_pipeline.report.inspection import inspect_places
from milan_pipeline.shards.manifest import Manifest, Shard
from tests.support.processes import killed


def record(path: Path, stage: str, state: str) -> None:
    document = {
        "stage": stage, "state": state, "started": "2020-01-01T00:00:00Z", "seconds": 60.0,
        "content": {}, "inputs": {}, "config": {"batch_size": 8}, "extent": {},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(record_bytes(document))


def run(folder: Path, *, done: bool, step: int) -> Path:
    record(folder / "config.json", "pretrain", "done" if done else "running")
    write_state(folder, "done" if done else "running", step=step, total_steps=100)
    return folder


def shards(folder: Path, *, done: bool) -> Path:
    record(folder / "pack-targets.json", "pack-targets", "done" if done else "running")
    listed = Shard(name="x.tar", samples=10, bytes=1, sha256="", index_sha256="", details=DETAILS)
    Manifest(kind="targets", folder=str(folder), shards=(listed,), complete=done).save()
    return folder


DETAILS = {"view": 0, "source": "x.tar", "source_sha256": "", "skipped": []}


def at_work(folder: Path, name: str, units: int, done: int, *, seconds: int = 60) -> Path:
    """Have this process report that it began a while ago; return the report's path."""
    times = [1_000_000.0]
    reporter = Reporter(str(folder), name, units=units, stop=StopRequest(), clock=lambda: times[-1])
    reporter.expect(units, done)
    reporter.begin(name)
    times.append(times[0] + seconds)
    reporter.step(240)
    reporter.wait()
    return folder / f"progress/{name}.json"


def status(folder: Path) -> FolderStatus:
    return folder_status(str(folder), 1_000_060.0)


def test_a_run_in_each_state(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", done=False, step=0)
    assert (status(folder).state, status(folder).done, status(folder).total) == ("left", 0, 100)
    report = at_work(folder, "pretrain", 100, 40)
    found = status(folder)
    assert (found.state, found.done, found.since) == ("running", 41, "1970-01-12T13:46:40Z")
    assert (found.images_per_second, found.seconds_left) == (4, 59 * 8 / 4)
    (folder / "checkpoints/step-00000030").mkdir(parents=True)
    killed(report)
    found = status(folder)
    assert (found.state, found.done, found.seconds_left) == ("dead", 30, None)
    run(folder, done=True, step=100)
    found = status(folder)
    assert (found.state, found.done, found.since) == ("done", 100, "2020-01-01T00:01:00Z")


def test_shards_know_their_number_from_whoever_writes_them(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards", done=False)
    report = at_work(folder, "pack-targets", 5, 1)
    found = status(folder)
    assert (found.kind, found.state, found.done, found.total) == ("target shards", "running", 2, 5)
    assert found.seconds_left == 3 * 10 / 4
    killed(report)
    assert (status(folder).state, status(folder).done, status(folder).total) == ("dead", 1, 5)
    shards(folder, done=True)
    assert (status(folder).state, status(folder).total) == ("done", 1)


@pytest.mark.parametrize(("stage", "kind"), [("probe", "scores"), ("export", "export")])
def test_scores_and_exports(stage: str, kind: str, tmp_path: Path) -> None:
    place = tmp_path / f"out/{stage}.json"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json").write_text("{}")  # what exports write for other programs
    record(place, stage, "running")
    assert (status(place.parent).kind, status(place.parent).state) == (kind, "left")
    record(place, stage, "done")
    assert (status(place.parent).state, status(place.parent).done) == ("done", 1)
    assert [part.kind for part in status(tmp_path).parts] == [kind]
    place.write_text("{")
    with pytest.raises(DataError, match=rf"{stage}\.json is damaged"):
        status(place.parent)


def test_all_outputs_below_a_folder(tmp_path: Path) -> None:
    shards(tmp_path / "shards", done=True)
    record(run(tmp_path / "seed-0/milan/run", done=True, step=9) / "probe/probe.json", "probe", "")
    found = status(tmp_path)
    assert (found.kind, found.state, found.done, found.total) == ("folder", "done", 2, 2)
    killed(at_work(run(tmp_path / "other", done=False, step=0), "pretrain", 9, 0))
    run(tmp_path / "third", done=False, step=0)
    found = status(tmp_path)
    assert (found.state, found.done, found.total) == ("dead", 2, 4)
    assert [Path(part["path"]).name for part in found.document["parts"]] == [
        "other", "run", "shards", "third",
    ]  # fmt: skip
    assert json.loads(json.dumps(found.document))["state"] == "dead"


def test_a_link_to_a_folder_above_counts_nothing_twice(tmp_path: Path) -> None:
    runs, other = tmp_path / "runs", run(tmp_path / "other/b", done=True, step=9).parent
    run(runs / "a", done=True, step=9)
    for name, place in (("up", runs), ("above", tmp_path), ("again", runs / "a"), ("c", other)):
        (runs / name).symlink_to(place)
    found = [Path(part["path"]) for part in status(runs).document["parts"]]
    assert found == [runs / "a", runs / "c/b"]


def test_a_folder_of_runs_stands_for_its_runs(tmp_path: Path) -> None:
    shards(tmp_path / "shards", done=True)
    record(tmp_path / "scores/probe.json", "probe", "done")
    places = [str(run(tmp_path / name, done=True, step=9)) for name in ("a", "b/c")]
    found = inspect_places([str(tmp_path)])
    assert ([report.name for report in found.runs], found.places) == (["a", "c"], places)
    with pytest.raises(MissingDataError, match="is no target store"):
        inspect_places([str(tmp_path / "scores")])


def test_an_export_is_no_run(tmp_path: Path) -> None:
    for name in ("export.json", "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(MissingDataError, match=r"holds an export, whose README.md tells of it"):
        inspect_places([str(tmp_path)])


def test_what_is_finished(tmp_path: Path) -> None:
    assert not is_finished(str(tmp_path / "none"))
    assert not is_finished(str(run(tmp_path / "a", done=False, step=1)))
    assert is_finished(str(run(tmp_path / "b", done=True, step=1)))


@pytest.mark.parametrize("name", ["empty", "none"])
def test_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty/within").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="with such folders in it"):
        status(tmp_path / name)


def foreign(folder: Path) -> Path:
    """Make folders that other programs write."""
    for name, text in {
        "timm/config.json": '{"architecture": "vit"}',
        "list/config.json": "[]",
        "plot/zarr.json": '{"zarr_format": 3, "node_type": "group"}',
        "app/manifest.json": "{no JSON}",
        "bench/probe.json": "{}",
        "app/export.json": "{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_other_programs_wrote_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds nothing that a stage wrote"):
        status(foreign(tmp_path))
    place = str(run(tmp_path / "run", done=True, step=9))
    assert [part.path for part in status(tmp_path).parts] == [place]
    assert inspect_places([str(tmp_path)]).places == [place]
    (tmp_path / "config.json").write_text("{}")
    assert [part.path for part in status(tmp_path).parts] == [place]


def test_what_is_damaged_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(run(tmp_path / "a", done=True, step=9))
    (run(tmp_path / "b", done=True, step=9) / "config.json").write_text("{")
    (shards(tmp_path / "c", done=True) / "manifest.json").write_text("{")
    record(tmp_path / "d/transcode.json", "transcode", "done")
    (tmp_path / "d/zarr.json").write_text("{}")
    found = status(tmp_path)
    assert (found.state, found.done, found.total) == ("unreadable", 1, 4)
    assert [(part["kind"], part["state"]) for part in found.document["parts"]] == [
        ("run", "done"), ("run", "unreadable"), (None, "unreadable"), ("target store", "unreadable")
    ]  # fmt: skip
    assert f"{tmp_path}/b/config.json is damaged" in str(found.parts[1].error)
    assert inspect_places([str(tmp_path)]).places == [place]
    assert f"{tmp_path}/b/config.json is damaged" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"b/config\.json is damaged"):
        status(tmp_path / "b")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "runs/a", done=True, step=9)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr("os.listdir", refuse)
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(StorageError, match="runs"):
        status(tmp_path / "runs")


def test_what_is_said_of_a_place_within_an_output(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", done=True, step=9)
    (folder / "checkpoints/step-00000009").mkdir(parents=True)
    for place in ("checkpoints", "checkpoints/step-00000008", "state.json"):
        with pytest.raises(MissingDataError, match=f"; it lies in {folder}: give that folder$"):
            status(folder / place)
    with pytest.raises(MissingDataError, match="and does not exist; give the folder"):
        status(folder / "runz")
    with pytest.raises(MissingDataError, match="runz does not exist; check the path"):
        inspect_places([str(folder / "runz")])


def test_nothing_is_looked_for_below_a_url() -> None:
    with pytest.raises(MissingDataError) as raised:
        folder_status("memory://nothing/here")
    assert str(raised.value).endswith("shards, a run, scores or an export")
