"""`extract-targets` with a codec that is fitted: once, before any unit, for every process alike."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.shard_records import layout_of
from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import before_modules, no_targets, run_and_kill
from tests.support.pictures import write_picture
from tests.support.remote import watched
from tests.support.stores import values_of

CODEC = "joint:bytes=4"


def extract(images, clip, out, *options, codec=CODEC, code=0):
    run_cli(
        "extract-targets", "--images", images, "--out", out, "--teacher", f"local-dir:{clip}",
        "--batch-size", 4, "--precision", "fp32", "--codec", codec, *options, code=code,
    )  # fmt: skip


def data_of(store: Path) -> dict[str, bytes]:
    """Everything but records and reports, which tell of options and times."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != "extract-targets.json" and "progress" not in path.parts
    }


@pytest.fixture(scope="module")
def store(image_shards, tiny_clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "targets.zarr"
    extract(image_shards, tiny_clip, out)
    return out


def test_targets_are_near_those_of_float16(store, target_store):
    codec = read_store_codec(str(store), read_identity(str(store)))
    for unit in ("view-00/images-000000", "view-00/images-000001"):
        ours, plain = (zarr.open_group(at / unit, mode="r") for at in (store, target_store))
        assert values_of(ours, "codes").shape[1:] == (1, 17 * 4)
        decoded = codec.decode(torch.from_numpy(values_of(ours, "codes")), None)
        full = torch.from_numpy(values_of(plain, "codes").astype(np.float32))
        # So few targets are learnt by heart.
        assert torch.cosine_similarity(decoded, full, dim=-1).mean() > 0.95
        prior = values_of(ours, "prior")
        assert prior.dtype == np.uint8
        ratio = decode_prior(prior) / values_of(plain, "prior")
        assert abs(np.log2(ratio)).max() <= 1 / 16 + 0.01
        for name in ("key", "box", "flip", "size", "digest"):
            assert np.array_equal(values_of(ours, name), values_of(plain, name))


def test_init_and_parts_write_the_same(store, image_shards, tiny_clip, tmp_path):
    out = tmp_path / "targets.zarr"
    extract(image_shards, tiny_clip, out, "--init")
    codec = {name: data for name, data in data_of(out).items() if name.startswith("codec/")}
    assert codec
    for part in ("1/2", "0/2"):
        extract(image_shards, tiny_clip, out, "--part", part)
    assert data_of(out) == data_of(store)


def test_killed_between_codec_and_root(store, image_shards, tiny_clip, tmp_path):
    out = tmp_path / "targets.zarr"
    extract(image_shards, tiny_clip, out, "--init")
    (out / "zarr.json").unlink()
    extract(image_shards, tiny_clip, out)
    assert data_of(out) == data_of(store)


def test_a_rerun_does_not_fit_again(store, image_shards, tiny_clip, capsys):
    with no_targets(AssertionError("there are targets to fit to")):
        extract(image_shards, tiny_clip, store)
        assert "nothing to do" in capsys.readouterr().out
        extract(image_shards, tiny_clip, store, "--overwrite")
        extract(image_shards, tiny_clip, store, "--dry-run")
    assert "units to do: 0" in capsys.readouterr().out


def test_more_views_take_the_store_s_codec(store, image_shards, tiny_clip, tmp_path):
    out = tmp_path / "targets.zarr"
    extract(image_shards, tiny_clip, out)
    before = data_of(out)
    extract(image_shards, tiny_clip, out, "--views", 2)
    after = data_of(out)
    assert before.items() <= after.items()
    assert len(after) > len(before)


@pytest.mark.parametrize("flag", [("--part", "0/2"), ("--processes", 2)])
def test_shared_work_needs_a_fitted_codec(image_shards, tiny_clip, tmp_path, capsys, flag):
    extract(image_shards, tiny_clip, tmp_path / "targets.zarr", *flag, code=2)
    error = capsys.readouterr().err
    assert f"--codec {CODEC} is fitted to targets before work can be shared by {flag[0]}" in error
    assert "run `extract-targets --init`" in error
    assert not (tmp_path / "targets.zarr").exists()


@pytest.mark.parametrize("codec", ["float16", "joint:bytes=5", "rotation:bits=2"])
def test_another_codec_is_refused_by_name(store, image_shards, tiny_clip, capsys, codec):
    before = data_of(store)
    for options in ((), ("--dry-run",)):
        extract(image_shards, tiny_clip, store, *options, codec=codec, code=1)
        error = capsys.readouterr().err
        assert "was made with other parameters" in error
        field = "codec.bytes is 4 there and 5 here" if "5" in codec else "codec.name is 'joint' the"
        assert field in error
    assert data_of(store) == before


def test_overwriting_for_another_teacher_fits_anew(store, image_shards, tiny_clip, tmp_path):
    out = tmp_path / "targets.zarr"
    extract(image_shards, tiny_clip, out)
    other = write_tiny_clip(tmp_path / "other", seed=5)
    extract(image_shards, other, out, code=1)
    extract(image_shards, other, out, "--overwrite")
    fresh = tmp_path / "fresh.zarr"
    extract(image_shards, other, fresh)
    assert data_of(out) == data_of(fresh)


def test_a_level_is_the_bytes_that_it_means(store, image_shards, tiny_clip, capsys):
    width = read_identity(str(store))["teacher"]["width"]
    extract(image_shards, tiny_clip, store, codec=f"joint:ratio={2 * width / 4}")
    assert "nothing to do" in capsys.readouterr().out


def test_dry_run_before_there_is_a_store(store, image_shards, tiny_clip, tmp_path, capsys):
    extract(image_shards, tiny_clip, tmp_path / "targets.zarr", "--dry-run")
    said = capsys.readouterr().out
    assert "units to do: 3" in said
    assert not (tmp_path / "targets.zarr").exists()


def test_unreadable_images_are_passed_over(tiny_clip, tmp_path, capsys):
    for number in range(5):
        write_picture(tmp_path / "pictures" / f"{number}.jpg", number)
    torn = tmp_path / "pictures" / "2.jpg"
    torn.write_bytes(torn.read_bytes()[:-200])
    run_cli("pack-images", tmp_path / "pictures", tmp_path / "shards", "--samples-per-shard", 5)
    extract(tmp_path / "shards", tiny_clip, tmp_path / "a.zarr", codec="joint:bytes=3")
    assert "4 targets, 1 skipped" in capsys.readouterr().out


def test_an_overwrite_that_was_killed_can_be_taken_back(
    store, image_shards, tiny_clip, tmp_path, capsys
):
    for writes in (3, 11):  # of the 11 of a codec
        out = tmp_path / f"{writes}.zarr"
        shutil.copytree(store, out)
        assert run_and_kill(
            writes, "extract-targets", "--images", image_shards, "--out", watched(out),
            "--teacher", f"local-dir:{tiny_clip}", "--batch-size", 4, "--precision", "fp32",
            "--codec", CODEC, "--view-seed", 1, "--overwrite",
        )  # fmt: skip
        # The codec is the other's by now, or in part, and the root is not.
        assert data_of(out)["zarr.json"] == data_of(store)["zarr.json"]
        assert data_of(out) != data_of(store)
        extract(image_shards, tiny_clip, out, "--views", 2, code=1)
        assert "; copy the " in capsys.readouterr().err
        extract(image_shards, tiny_clip, out, "--overwrite")
        assert data_of(out) == data_of(store)


def test_who_fitted_last_takes_the_codec_of_who_was_first(image_shards, tiny_clip, tmp_path):
    """Two processes find no root; before one computes targets, the other has fitted its codec."""
    for number in range(5):
        write_picture(tmp_path / "pictures" / f"{number}.jpg", 50 + number)
    run_cli("pack-images", tmp_path / "pictures", tmp_path / "others")
    first, out = tmp_path / "first.zarr", tmp_path / "targets.zarr"
    extract(tmp_path / "others", tiny_clip, first, "--init")  # not the codec of these images
    (first / "extract-targets.json").unlink()

    def appear(*_):
        if not (out / "zarr.json").exists():
            shutil.copytree(first, out, dirs_exist_ok=True)

    with before_modules(appear):
        extract(image_shards, tiny_clip, out)
    extract(image_shards, tiny_clip, first)
    assert data_of(out) == data_of(first)


def test_status_of_a_fitted_store(store, capsys):
    run_cli("status", store)
    said = capsys.readouterr().out
    assert "units: 3 done, 0 running, 0 failed, 0 stale, 0 missing" in said
    row = layout_of(read_identity(str(store))).dtype.itemsize
    assert f"targets: 24, bytes: about {24 * row} (" in said
    assert 17 * 4 + 16 < row < 17 * 4 + 16 + 32
