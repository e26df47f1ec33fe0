"""pack-targets --codec: what transcoding and packing gives, what it goes on with or refuses."""

import json
from pathlib import Path

import pytest

from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.codec_files import read_shards_codec
from milan_pipeline.targets.layout import read_identity
from tests.support.cli import run_cli
from tests.support.disturbances import run_and_kill
from tests.support.pretrain import log, pretrain
from tests.support.processes import files_without
from tests.support.remote import watched

CODEC = "joint:bytes=3"


def pack(store: Path, out: Path, *words: object, code: int = 0) -> Path:
    run_cli("pack-targets", "--targets", store, "--out", out, *words, code=code)
    return out


@pytest.fixture(scope="module")
def transcoded(target_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target store by a vector codec."""
    out = tmp_path_factory.mktemp("transcoded") / "targets.zarr"
    run_cli("transcode", target_store, out, "--codec", CODEC)
    return out


@pytest.fixture(scope="module")
def packed(target_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target store packed by the codec at once."""
    out = tmp_path_factory.mktemp("packed") / "targets"
    return pack(target_store, out, "--codec", CODEC)


def test_packing_by_a_codec_is_transcoding_and_packing(
    packed: Path, transcoded: Path, tmp_path: Path, capsys
) -> None:
    two_steps = pack(transcoded, tmp_path / "targets")
    but = ("manifest.json", "pack-targets.json")
    assert files_without(packed, *but) == files_without(two_steps, *but)
    ours, theirs = (load_manifest(str(at), kind="targets") for at in (packed, two_steps))
    assert ours.common == theirs.common
    assert list(ours.common["identity"]) == list(theirs.common["identity"])
    assert [shard.sha256 for shard in ours.shards] == [shard.sha256 for shard in theirs.shards]
    # A lost codec is written again, since the store has it.
    (two_steps / "codec.safetensors").unlink()
    pack(transcoded, two_steps)
    assert files_without(packed, *but) == files_without(two_steps, *but)
    capsys.readouterr()
    pack(transcoded, two_steps, "--codec", CODEC)  # the store's own
    assert "nothing to do" in capsys.readouterr().out


def test_packing_goes_on_with_the_codec_that_is_there(
    packed: Path, target_store: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "targets"
    words = ("pack-targets", "--targets", target_store, "--out", watched(out), "--workers", 0)
    for writes in (0, 1, 2, 3, 6):
        assert run_and_kill(writes, *words, "--codec", CODEC, "--views", 1)
    pack(target_store, out, "--codec", CODEC, "--views", 1)
    assert "3 shards, 24 targets" in capsys.readouterr().out
    pack(target_store, out, "--codec", CODEC, "--dry-run")
    assert "shards to do: 3, done: 3" in capsys.readouterr().out
    pack(target_store, out, "--codec", CODEC)
    assert files_without(out, "pack-targets.json") == files_without(packed, "pack-targets.json")
    before = files_without(out)
    for other, message in (
        (("--codec", "joint:bytes=4"), "options.codec.bytes is 3 there and 4 here"),
        ((), "options.transcoded_from is {'name': 'float16'} there and not given here"),
    ):
        pack(target_store, out, *other, code=1)
        assert message in capsys.readouterr().err
    assert files_without(out) == before
    pack(target_store, out, "--overwrite")
    identity = read_identity(str(target_store))
    manifest = load_manifest(str(out), kind="targets")
    assert manifest.common == {"identity": identity, "identity_hash": content_hash(identity)}
    assert all(
        shard.sha256 != other.sha256
        for shard, other in zip(
            manifest.shards, load_manifest(str(packed), kind="targets").shards, strict=True
        )
    )


def test_pretrain_on_them(packed: Path, image_shards: Path, tmp_path: Path) -> None:
    pretrain(image_shards, packed, tmp_path / "run", "--max-steps", 6, "--threads", 2)
    losses = [row["loss"] for row in log(tmp_path / "run")]
    assert len(losses) == 6
    assert all(0 < loss < 4 for loss in losses)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["threads"] == 2
    identity = load_manifest(str(packed), kind="targets").common["identity"]
    assert config["inputs"]["identity_hash"] == content_hash(identity)
    assert read_shards_codec(str(packed), identity).spec.token_bytes == 3
