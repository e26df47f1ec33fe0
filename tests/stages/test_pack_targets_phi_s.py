"""pack-targets --phi-s: fitted beside shards that are there, and fitted anew where they change."""

import shutil
from pathlib import Path

import pytest

from milan_pipeline.pretraining.phi_s_file import PHI_S_FILE
from milan_pipeline.shards.manifest import load_manifest
from tests.support.cli import run_cli


@pytest.fixture
def out(target_shards: Path, tmp_path: Path) -> Path:
    return shutil.copytree(target_shards, tmp_path / "shards")


def test_it_is_fitted_beside_the_shards_that_are_there(
    target_store: Path, target_shards: Path, out: Path, capsys
) -> None:
    words = ("pack-targets", "--targets", target_store, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    run_cli(*words, "--phi-s", "--dry-run")
    assert "shards to do: 0, done: 6\nPHI-S is to be fitted" in capsys.readouterr().out
    run_cli(*words, "--phi-s")
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    ours, plain = (load_manifest(str(at), kind="targets") for at in (out, target_shards))
    stated = ours.common["phi_s"]
    assert stated["tokens"] == 24 * 17
    assert {**plain.common, "phi_s": stated} == ours.common
    assert plain.shards == ours.shards
    capsys.readouterr()
    for more in (["--phi-s"], []):
        run_cli(*words, *more)
        assert "nothing to do, 6 shards are there" in capsys.readouterr().out
    assert load_manifest(str(out), kind="targets").common["phi_s"] == stated
    place = out / PHI_S_FILE
    whole = place.read_bytes()
    for damage in (place.unlink, lambda: place.write_bytes(whole[:-1])):
        damage()
        run_cli(*words, "--phi-s")
        assert place.read_bytes() == whole


def test_that_of_other_targets_does_not_stay(target_store: Path, out: Path) -> None:
    words = ("pack-targets", "--targets", target_store, "--out", out)
    run_cli(*words, "--phi-s")
    first = load_manifest(str(out), kind="targets").common["phi_s"]
    run_cli(*words, "--codec", "rotation:bits=2", "--overwrite", "--phi-s")
    second = load_manifest(str(out), kind="targets").common["phi_s"]
    assert first["sha256"] != second["sha256"]
    run_cli(*words, "--overwrite")
    assert "phi_s" not in load_manifest(str(out), kind="targets").common
