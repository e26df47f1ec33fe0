"""Targets of a codec whose format is newer than this program are refused by name."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.layout import read_identity, root_bytes
from tests.support.cli import run_cli
from tests.support.pretrain import SHORT, TINY_STUDENT

CODECS: dict[str, dict[str, Any]] = {
    "joint": {"name": "joint", "version": 3, "bytes": 4, "more": "fields", "arrays": "0" * 64},
    "int8": {"name": "int8", "version": 2},
}
REFUSED = "the codec {} in its format version {}, this program reads {}; use a newer milan-pipeline"


def refused(name: str) -> str:
    version = CODECS[name]["version"]
    return REFUSED.format(name, version, version - 1)


def newer(identity: Identity, name: str) -> Identity:
    return identity | {"codec": CODECS[name]}


def newer_store(store: Path, folder: Path, name: str) -> Path:
    out = Path(shutil.copytree(store, folder / "newer.zarr"))
    (out / "zarr.json").write_bytes(root_bytes(newer(read_identity(str(out)), name)))
    return out


def newer_shards(shards: Path, folder: Path, name: str) -> Path:
    out = Path(shutil.copytree(shards, folder / "newer"))
    manifest = load_manifest(str(out), kind="targets")
    identity = newer(manifest.common["identity"], name)
    common = {"identity": identity, "identity_hash": content_hash(identity)}
    dataclasses.replace(manifest, common=dict(manifest.common) | common).save()
    return out


@pytest.fixture
def extraction(image_shards: Path, tiny_clip: Path) -> tuple[object, ...]:
    teacher = f"local-dir:{tiny_clip}"
    return ("extract-targets", "--images", image_shards, "--teacher", teacher, "--views", 2)


@pytest.mark.parametrize("name", CODECS)
def test_of_a_store(
    extraction: tuple[object, ...], target_store: Path, tmp_path: Path, name: str, capsys
) -> None:
    store = newer_store(target_store, tmp_path, name)
    extract = (*extraction, "--out", store)
    for words in (
        ("pack-targets", "--targets", store, "--out", tmp_path / "packed"),
        ("pack-targets", "--targets", store, "--out", tmp_path / "packed", "--codec", "int8"),
        ("transcode", store, tmp_path / "other.zarr", "--codec", "float16"),
        ("codecs", store),
        ("verify", store),
        ("status", store),
        extract,
        (*extract, "--codec", "joint:bytes=4"),
        (*extract, "--dry-run"),
    ):
        run_cli(*words, code=1)
        assert refused(name) in capsys.readouterr().err, words
    assert not (tmp_path / "other.zarr").exists()


@pytest.mark.parametrize("name", CODECS)
def test_of_target_shards(
    target_shards: Path, image_shards: Path, tmp_path: Path, name: str, capsys
) -> None:
    shards, run = newer_shards(target_shards, tmp_path, name), tmp_path / "run"
    words = ("pretrain", "--images", image_shards, "--targets", shards, "--out", run)
    run_cli(*words, *TINY_STUDENT, *SHORT, code=1)
    assert refused(name) in capsys.readouterr().err
    run_cli(*words, *TINY_STUDENT, *SHORT, "--dry-run", code=1)
    assert refused(name) in capsys.readouterr().err
