"""inspect: what the command prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from tests.support.cli import run_cli
from tests.support.pages import require_self_contained
from tests.support.pretrain import pretrain

Captured = pytest.CaptureFixture[str]


def printed(capsys: Captured, *words: object) -> str:
    capsys.readouterr()
    run_cli("inspect", *words)
    return capsys.readouterr().out


def test_a_store(target_store: Path, capsys: Captured) -> None:
    lines = printed(capsys, target_store).splitlines()
    assert lines[0] == "target store"
    assert [line for line in lines if not line.startswith(" ")] == [
        "target store", "identity", "counts", "ledger", "sizes", "codec",
    ]  # fmt: skip
    facts = json.loads(printed(capsys, target_store, "--json"))
    assert facts["counts"]["targets"] == 48
    assert facts["counts"]["units_done"] == 6
    assert facts["ledger"] == {"skipped": 0, "reasons": {}, "first": []}
    assert facts["sizes"]["codes_as_float16_bytes"] == 17 * 24 * 2
    assert facts["identity"]["teacher.width"] == 24
    assert f"  {'targets':<{len('teacher.weights sha256')}}  48" in lines


def test_shards_of_both_kinds(target_shards: Path, image_shards: Path, capsys: Captured) -> None:
    facts = json.loads(printed(capsys, target_shards, "--json"))
    assert (facts["counts"]["targets"], facts["counts"]["shards"]) == (48, 6)
    facts = json.loads(printed(capsys, image_shards, "--json"))
    assert (facts["counts"]["images"], facts["counts"]["most_in_a_shard"]) == (24, 10)
    assert facts["image shards"]["classes"] == ["ant", "bee", "cat"]


def test_a_run(image_shards: Path, target_shards: Path, tmp_path: Path, capsys: Captured) -> None:
    pretrain(image_shards, target_shards, tmp_path / "run", "--max-steps", 2)
    facts = json.loads(printed(capsys, tmp_path / "run", "--json"))
    assert (facts["run"]["state"], facts["run"]["step"]) == ("done", 2)
    assert facts["options"]["mask_ratio"] == 0.75
    assert facts["options"]["image_size"] == 32  # of the targets' grid, as no option gives it
    assert facts["latest steps"]["memory_bytes"] > 1_000_000
    both = json.loads(printed(capsys, tmp_path / "run", tmp_path / "run", "--json"))
    assert both == [facts, facts]
    page = tmp_path / "page.html"
    printed(
        capsys, tmp_path / "run", "--html", page, "--images", image_shards,
        "--targets", target_shards, "--gallery", 2,
    )  # fmt: skip
    assert require_self_contained(page.read_text()).texts["h1"] == "run"


def test_what_is_refused(target_store: Path, tmp_path: Path, capsys: Captured) -> None:
    run_cli("inspect", tmp_path, code=1)
    assert "is no target store (zarr.json)" in capsys.readouterr().err
    (tmp_path / "scores.json").touch()
    run_cli("inspect", tmp_path, code=1)
    assert f"holds scores; `milan-pipeline compare {tmp_path}` shows" in capsys.readouterr().err
    (tmp_path / "scores.json").unlink()
    run_cli("inspect", tmp_path / "none", code=1)
    assert "none does not exist; check the path" in capsys.readouterr().err
    for option in ("--images", "--targets", "--originals"):
        run_cli("inspect", target_store, option, tmp_path, code=2)
        assert f"{option} is for the page; give --html FILE as well" in capsys.readouterr().err
    (tmp_path / "config.json").touch()
    run_cli("inspect", target_store, "--html", tmp_path / "config.json", code=2)
    assert "config.json is no page; use a name that ends in .html" in capsys.readouterr().err
    (tmp_path / "config.json").unlink()
    page = tmp_path / "x.html"
    run_cli("inspect", target_store, "--html", page, "--targets", tmp_path, code=2)
    assert "also needs pixels; give --images" in capsys.readouterr().err
    run_cli("inspect", target_store, "--results", tmp_path, code=2)
    assert "is for a run, not for target store" in capsys.readouterr().err
    run_cli("inspect", target_store, "--gallery", 151, code=2)
