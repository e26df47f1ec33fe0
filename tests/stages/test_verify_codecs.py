"""verify and fitted codecs: their arrays, and their own error in the live comparison."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from milan_pipeline.stages.verify.command import Verify
from milan_pipeline.stages.verify.store import extraction_of
from tests.support.cli import extract_targets, run_cli
from tests.support.damage import UNIT, change, flip_bit, open_unit, verify
from tests.support.stores import files_and_times, values_of


@pytest.fixture(scope="module")
def joint_store(
    image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two views of the pictures' targets in two bytes a token."""
    out = tmp_path_factory.mktemp("joint") / "targets.zarr"
    words = ("--views", 2, "--codec", "joint:bytes=2", "--batch-size", 4, "--precision", "fp32")
    extract_targets(image_shards, tiny_clip, out, *words)
    return out


@pytest.fixture
def store(joint_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(joint_store, tmp_path / "targets.zarr"))


def test_the_codec_s_own_error_is_no_fault(joint_store: Path, capsys) -> None:
    found, said = verify(joint_store, capsys, "--sample", 48)
    assert found["faults"] == {}
    assert 0.999 < found["live"]["worst"] <= found["live"]["mean"] <= 1
    assert 0.8 < found["codec_cosines"]["mean"] < 0.99
    # Of what its step leaves open, as float16 and int8 have it of rounding.
    assert found["live"]["prior_error"] < 1e-6
    cosines = found["codec_cosines"]
    assert f"joint: mean cosine {cosines['mean']:.6f} to the teacher's" in said
    assert f"without the largest channel {cosines['mean_without_the_largest_channel']:.6f}" in said
    assert cosines["first_percentile"] < cosines["mean"]
    assert cosines["its_first_percentile"] < cosines["mean_without_the_largest_channel"]


def test_a_few_wrong_images_are_found_and_repaired(joint_store: Path, store: Path, capsys) -> None:
    def swap(codes: np.ndarray) -> np.ndarray:
        codes[[0, 1]] = codes[[1, 0]]
        return codes

    codes = values_of(open_unit(store), "codes")
    assert not np.array_equal(codes[0], codes[1])
    change(store, "codes", swap)
    found, _ = verify(store, capsys, "--sample", 48, code=1)
    assert list(found["faults"]) == [UNIT]
    assert len(found["faults"][UNIT]) == 2
    found, _ = verify(store, capsys, "--sample", 48, "--repair")
    assert (found["faults"], found["repaired"]) == ({}, [UNIT])
    repaired, whole = files_and_times(store), files_and_times(joint_store)
    assert {at: data for at, (data, _) in repaired.items()} == {
        at: data for at, (data, _) in whole.items()
    }


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no group": ("zarr.json", Path.unlink, "is missing, without which no target can be decoded"),
    "no array": ("basis/zarr.json", Path.unlink, "is missing, without which no target"),
    "no values": ("byte/c/0", Path.unlink, "is missing, without which no target"),
    "a bit": ("level/c/0/0", flip_bit, "is damaged"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_arrays_that_are_missing_or_damaged_are_named(store: Path, kind: str, capsys) -> None:
    path, damage, reason = DAMAGES[kind]
    damage(store / "codec" / path)
    run_cli("verify", store, "--sample", 0, code=1)
    named = path if reason.startswith("is missing") else path.partition("/")[0]
    assert f"{store}/codec/{named} {reason}" in capsys.readouterr().err


def test_arrays_of_another_codec(target_store: Path, store: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other.zarr"
    run_cli("transcode", target_store, other, "--codec", "joint:bytes=3")
    shutil.rmtree(store / "codec")
    shutil.copytree(other / "codec", store / "codec")
    run_cli("verify", store, "--sample", 0, code=1)
    said = capsys.readouterr().err
    assert f"{store}/codec: the arrays of the codec joint are missing or are not those" in said


def test_a_lossy_codec_before_the_store_s(joint_store: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "int8.zarr"
    run_cli("transcode", joint_store, out, "--codec", "int8")
    found, said = verify(out, capsys)
    assert found["faults"] == {}
    assert found["codec_cosines"]["mean"] == pytest.approx(found["live"]["mean"])
    assert found["live"]["worst"] < found["codec_cosines"]["mean"] < 0.99
    assert "targets went through the codec joint before" in said


def test_transcoding_from_a_plain_codec_is_no_loss_unknown(
    target_store: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "joint.zarr"
    run_cli("transcode", target_store, out, "--codec", "joint:bytes=3")
    found, said = verify(out, capsys, "--sample", 48)
    assert found["faults"] == {}
    assert 0.99 < found["live"]["worst"] <= 1
    assert found["codec_cosines"]["mean"] < 0.99
    assert "went through" not in said


def test_a_store_may_have_been_extracted_with_a_codec_that_is_no_longer_known() -> None:
    recorded = {"images": "i", "out": "t", "teacher": "ViT-B-16", "codec": "vector:ratio=8"}
    assert extraction_of(Verify(store="s"), recorded).teacher == "ViT-B-16"
