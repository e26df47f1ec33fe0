"""status: what the command prints of a store that is done, half done, and none."""

import json
import re
import shutil
from pathlib import Path

import pytest

from milan_pipeline.provenance.record import record_bytes
from tests.support.cli import extract_targets, run_cli
from tests.support.processes import elsewhere, killed

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def half_done(image_shards: Path, tiny_clip: Path, tmp_path: Path, capsys: Captured) -> Path:
    """Part 0 of 2 of two views is done."""
    out = tmp_path / "targets.zarr"
    extract_targets(image_shards, tiny_clip, out, "--views", 2, "--part", "0/2")
    capsys.readouterr()
    return out


def test_done(target_store: Path, capsys: Captured) -> None:
    run_cli("status", target_store)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(f"{target_store}: done since 20[-0-9:TZ]+, 6 of 6 units", lines[0])
    assert re.fullmatch(
        r"teacher: local-dir:.*/clip\d+ in (fp32|bf16), codec: float16", lines.pop(1)
    )
    assert lines[1:5] == [
        "units: 6 done, 0 running, 0 failed, 0 stale, 0 missing",
        "  view-00: 3 done, 0 running, 0 failed, 0 stale, 0 missing",
        "  view-01: 3 done, 0 running, 0 failed, 0 stale, 0 missing",
        "images: 0 left, 0/s now, 0/s on average; none left",
    ]
    assert lines[5].startswith("targets: 48, bytes: about ")
    assert re.fullmatch("single: done, 6 of 6 done at 20[-0-9:TZ]+", lines[6])


def test_units_that_were_lost_since_are_not_done(
    target_store: Path, tmp_path: Path, capsys: Captured
) -> None:
    store = shutil.copytree(target_store, tmp_path / "t.zarr")
    shutil.rmtree(store / "done" / "view-01")
    run_cli("status", store)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{store}: left, 3 of 6 units"
    assert "units: 3 done, 0 running, 0 failed, 0 stale, 3 missing" in lines


def at_work(store: Path, **said: object) -> None:
    """Have the report of a part say that it is at work."""
    path = store / "progress/part-000-of-002.json"
    report = json.loads(path.read_text()) | {"state": "running", "unit": "view-01/images-000002"}
    path.write_text(json.dumps(report | said))


def test_half_done_and_killed(half_done: Path, capsys: Captured) -> None:
    at_work(half_done, failed={"view-01/images-000000": "it is damaged"})
    killed(half_done / "progress/part-000-of-002.json")
    run_cli("status", half_done)
    output = capsys.readouterr().out
    assert output.startswith(f"{half_done}: dead since 20")
    assert "units: 3 done, 0 running, 1 failed, 0 stale, 2 missing\n" in output
    assert "  view-01/images-000000: it is damaged\n" in output
    assert "no process is at work" in output
    assert re.search(r"dead, 3 of 3 done; process \d+ on .* has ended without a word\n", output)
    assert ": running" not in output


def test_dead_elsewhere(half_done: Path, capsys: Captured) -> None:
    at_work(half_done, heard="2001-01-01T00:00:00Z")
    elsewhere(half_done / "progress/part-000-of-002.json")
    run_cli("status", half_done)
    said = "dead, 3 of 3 done; nothing heard from another since 2001-01-01T00:00:00Z\n"
    assert said in capsys.readouterr().out


def test_a_process_whose_speed_is_not_known_yet_is_at_work(
    half_done: Path, capsys: Captured
) -> None:
    at_work(half_done, images_per_second=0.0)
    run_cli("status", half_done)
    output = capsys.readouterr().out
    assert "on average; no speed is known yet\n" in output
    assert "no process" not in output


def test_one_output_of_a_folder_that_is_damaged(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text('{"stage": "pretrain", "state": "done"}')
    run_cli("status", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}: unreadable, 0 of 1 output"
    assert lines[1].startswith(f"  {tmp_path}/run: unreadable: {tmp_path}/run/config.json is dam")


def test_time_left(half_done: Path, capsys: Captured) -> None:
    at_work(half_done, images_per_second=0.01)
    run_cli("status", half_done)
    output = capsys.readouterr().out
    assert output.startswith(f"{half_done}: running since 20")
    assert ", 3 of 6 units, 0.01 images/s, 0:" in output
    assert "1 running" in output
    assert "0.01/s now" in output
    assert ":00 left" in output
    assert "working on view-01/images-000002, 0.01 images/s" in output


def test_many_stale_units_are_not_all_named(half_done: Path, capsys: Captured) -> None:
    record = half_done / "extract-targets.json"
    document = json.loads(record.read_text())
    document["extent"] |= {
        "shards": {f"s-{number}.tar": "new" for number in range(12)},
        "samples": [1] * 12,
        "views": 1,
    }
    record.write_bytes(record_bytes(document))
    mark = json.loads((half_done / "done/view-00/images-000000.json").read_text())
    for number in range(12):
        (half_done / f"done/view-00/s-{number}.json").write_text(json.dumps(mark))
    run_cli("status", half_done)
    output = capsys.readouterr().out
    assert output.count("its image shard has changed") == 10
    assert "  and 2 more\n" in output


def test_json(half_done: Path, capsys: Captured) -> None:
    run_cli("status", half_done, "--json")
    document = json.loads(capsys.readouterr().out)
    facts = {"kind": "target store", "stage": "extract-targets", "state": "left", "done": 3}
    assert document.items() >= (facts | {"total": 6, "unit": "units"}).items()
    assert document["store"]["views"]["view-00"]["done"] == 2
    assert document["processes"][0]["name"] == "part-000-of-002"


def test_nothing(tmp_path: Path, capsys: Captured) -> None:
    run_cli("status", tmp_path, code=1)
    assert "holds nothing that a stage wrote" in capsys.readouterr().err
    run_cli("status", tmp_path, "--dry-run", code=2)
