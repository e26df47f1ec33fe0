"""pack-targets: byte-identical tars, what is stale, what is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest

from milan_pipeline.core.console import bytes_text
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.shard_records import layout_of
from tests.support.cli import extract_targets, run_cli
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import run_and_kill, stopped_at_put
from tests.support.pictures import write_picture
from tests.support.remote import Request, noting, watched


def load(folder: Path) -> Manifest:
    return load_manifest(str(folder), kind="targets")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "pack-targets.json"
    }


def times_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.tar")}


def pack(store: Path, out: Path, *words: object, code: int = 0) -> None:
    run_cli("pack-targets", "--targets", store, "--out", out, *words, code=code)


def test_one_shard_for_each_image_shard_and_view(
    target_store: Path, target_shards: Path, image_shards: Path
) -> None:
    manifest = load(target_shards)
    images = load_manifest(str(image_shards), kind="images")
    assert [shard.name for shard in manifest.shards] == [
        f"view-0{view}/targets-v0{view}-images-00000{number}.tar"
        for view in range(2)
        for number in range(3)
    ]
    for position, shard in enumerate(manifest.shards):
        source = images.shards[position % 3]
        assert shard.samples == source.samples
        assert shard.details["view"] == position // 3
        assert shard.details["source"] == source.stem
        assert shard.details["source_sha256"] == source.sha256
        assert shard.details["skipped"] == []
    identity = read_identity(str(target_store))
    assert manifest.common["identity"] == identity
    assert manifest.common["identity_hash"] == content_hash(identity)
    record = json.loads((target_shards / "pack-targets.json").read_text())
    assert record["state"] == "done"
    assert record["counts"]["targets"] == 48


def test_a_second_run_has_nothing_to_do_and_more_views_extend(
    target_store: Path, target_shards: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    pack(target_store, out, "--views", 1)
    assert len(load(out).shards) == 3
    before = times_of(out)
    pack(target_store, out, "--views", 1)
    assert "nothing to do, 3 shards are there" in capsys.readouterr().out
    pack(target_store, out, "--dry-run")
    assert "shards to do: 3, done: 3" in capsys.readouterr().out
    pack(target_store, out)
    assert before.items() < times_of(out).items()
    assert files_of(out) == files_of(target_shards)


@pytest.fixture(scope="module")
def wide_store(image_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of the pictures' targets, of which each is large enough for a member of its own."""
    root = tmp_path_factory.mktemp("wide")
    run_cli(
        "extract-targets", "--images", image_shards, "--out", root / "targets.zarr", "--teacher",
        f"local-dir:{write_tiny_clip(root / 'clip', image_size=128)}", "--views", 2,
    )  # fmt: skip
    return root / "targets.zarr"


@pytest.mark.parametrize(("kind", "is_shared"), [("target_store", True), ("wide_store", False)])
@pytest.mark.parametrize("views_done", [0, 1])
def test_a_dry_run_writes_nothing_and_comes_true(
    tmp_path: Path, *, kind: str, is_shared: bool, views_done: int, capsys, request
) -> None:
    store, out = request.getfixturevalue(kind), tmp_path / "out"
    assert layout_of(read_identity(str(store))).is_shared == is_shared
    if views_done:
        pack(store, out, "--views", views_done)
    before = files_of(out)
    capsys.readouterr()
    pack(store, out, "--dry-run")
    output = capsys.readouterr().out
    assert files_of(out) == before
    pack(store, out)
    sizes = [
        len(data)
        for name, data in files_of(out).items()
        if name not in before and name.endswith((".tar", ".npy"))
    ]
    views = 2 - views_done
    assert len(sizes) == 2 * 3 * views
    assert f"shards to do: {3 * views}, done: {3 * views_done}" in output
    assert f"bytes to write: {bytes_text(sum(sizes))} in tars" in output
    assert f", {sum(sizes) / (24 * views):.0f} a target; free: " in output


def test_an_unfinished_store_is_refused(target_store: Path, tmp_path: Path, capsys) -> None:
    store = tmp_path / "targets.zarr"
    shutil.copytree(target_store, store)
    record = json.loads((store / "extract-targets.json").read_text())
    (store / "extract-targets.json").write_bytes(record_bytes(record | {"state": "running"}))
    (store / "done" / "view-01" / "images-000002.json").unlink()
    pack(store, tmp_path / "out", code=1)
    assert "is not finished; run extract-targets again" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    pack(store, tmp_path / "out", "--allow-unfinished")
    assert len(load(tmp_path / "out").shards) == 5


def test_a_view_that_nobody_finished_is_not_packed(
    image_shards: Path, tiny_clip: Path, target_store: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(target_store, tmp_path / "targets.zarr")
    (store / "done/view-01/images-000002.json").unlink()
    pack(store, tmp_path / "torn", code=1)  # "done", but for a unit
    record = store / "extract-targets.json"
    record.write_bytes(record_bytes(json.loads(record.read_text()) | {"state": "running"}))
    pack(store, tmp_path / "torn", code=1)  # killed in its second view
    extract_targets(image_shards, tiny_clip, store, "--batch-size", 4, "--views", 1)
    pack(store, tmp_path / "whole")
    names = [shard.name for shard in load_manifest(str(tmp_path / "whole"), kind="targets").shards]
    assert names == [f"view-00/targets-v00-images-00000{number}.tar" for number in range(3)]


@pytest.mark.slow
def test_units_of_shards_that_are_gone_are_not_packed(
    pictures: Path, tiny_clip: Path, target_store: Path, tmp_path: Path
) -> None:
    """Packed anew into fewer shards and extracted again, the old third shard's unit is left out."""
    store = shutil.copytree(target_store, tmp_path / "targets.zarr")
    run_cli("pack-images", pictures, tmp_path / "two", "--samples-per-shard", 12)
    run_cli(
        "extract-targets", "--images", tmp_path / "two", "--out", store, "--teacher",
        f"local-dir:{tiny_clip}", "--batch-size", 4, "--views", 2, "--overwrite",
    )  # fmt: skip
    pack(store, tmp_path / "out")
    assert load_manifest(str(tmp_path / "out"), kind="targets").samples == 48
    run_cli("pretrain", "--images", tmp_path / "two", "--targets", tmp_path / "out", "--out",
            tmp_path / "run", "--patch-size", 8, "--dry-run")  # fmt: skip


def test_what_is_no_store_is_refused(tmp_path: Path, target_store: Path, capsys) -> None:
    pack(tmp_path, tmp_path / "out", code=1)
    assert "holds no target store" in capsys.readouterr().err
    pack(target_store, tmp_path / "out", "--views", 3, code=1)
    assert "--views asks for 3, " in capsys.readouterr().err
    for words in (("--views", 0), ("--workers", -1)):
        pack(target_store, tmp_path / "out", *words, code=2)


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_store_is_named(target_store: Path, tmp_path: Path, damage: str, capsys) -> None:
    store = tmp_path / "targets.zarr"
    shutil.copytree(target_store, store)
    path = store / "view-00" / "images-000001" / "codes" / "c" / "0" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "flip":
        path.write_bytes(bytes(data))
    else:
        path.unlink()
    pack(store, tmp_path / "out", "--workers", 0, code=1)
    assert f"{path} is {'damaged' if damage == 'flip' else 'missing'}" in capsys.readouterr().err
    unfinished = load_manifest(str(tmp_path / "out"), kind="targets", allow_unfinished=True)
    assert [shard.details["source"] for shard in unfinished.shards] == ["images-000000"]


def test_other_targets_are_refused_or_replace(
    target_store: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    other, out = tmp_path / "other.zarr", tmp_path / "out"
    teacher = write_tiny_clip(tmp_path / "clip", seed=1)
    extract_targets(image_shards, teacher, other, "--codec", "int8")
    pack(target_store, out)
    before = files_of(out)
    pack(other, out, code=1)
    error = capsys.readouterr().err
    assert "options.codec.name is 'float16' there and 'int8' here" in error
    assert "options.teacher.weights_sha256 is" in error
    assert files_of(out) == before
    pack(other, out, "--overwrite")
    manifest = load(out)
    assert manifest.common["identity"]["codec"] == {"name": "int8"}
    assert len(manifest.shards) == 3


def test_tars_of_units_that_were_extracted_again_are_stale(
    pictures: Path, tiny_clip: Path, tmp_path: Path, capsys
) -> None:
    source, shards, store, out = (tmp_path / name for name in ("in", "shards", "t.zarr", "out"))
    shutil.copytree(pictures, source)
    images = ("pack-images", source, shards, "--samples-per-shard", 10, "--no-shuffle")
    extract = (
        "extract-targets", "--images", shards, "--out", store, "--teacher",
        f"local-dir:{tiny_clip}", "--views", 2,
    )  # fmt: skip
    run_cli(*images)
    run_cli(*extract)
    pack(store, out)
    before, times = files_of(out), times_of(out)
    write_picture(source / "ant" / "003.jpg", 99)
    run_cli(*images, "--overwrite")
    run_cli(*extract)
    capsys.readouterr()
    pack(store, out, "--dry-run")
    assert "shards to do: 2, done: 4" in capsys.readouterr().out
    pack(store, out)
    stale = {f"targets-v0{view}-images-000000.tar" for view in range(2)}
    assert {name for name, time in times_of(out).items() if time != times[name]} == stale
    changed = {path for path, data in files_of(out).items() if data != before[path]}
    assert {path.split("/")[-1] for path in changed if path.endswith(".tar")} == stale
    digest = load_manifest(str(shards), kind="images").shards[0].sha256
    assert load(out).shards[0].details["source_sha256"] == digest


def test_a_shard_that_is_lost_or_of_another_size_and_all_by_overwrite_are_written_again(
    target_store: Path, target_shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(target_shards, out)
    first, second, third = sorted((out / "view-00").glob("*.tar"))
    times = times_of(out)
    os.truncate(first, 5000)
    third.unlink()
    pack(target_store, out)
    assert files_of(out) == files_of(target_shards)
    changed = {name for name, time in times_of(out).items() if time != times[name]}
    assert changed == {first.name, third.name}
    second.write_bytes(bytes(second.stat().st_size))  # damaged, but of the same size
    left = out / "view-01" / "targets-v01-images-000001.tar"
    assert left.exists()
    pack(target_store, out, "--overwrite", "--views", 1)
    assert not left.exists()
    manifest = out / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"identity_hash": "', '"identity_hash": "0', 1)
    )
    pack(target_store, out, "--overwrite")
    assert files_of(out) == files_of(target_shards)


def test_what_is_there_is_read_once(target_store: Path, target_shards: Path) -> None:
    def places(read: list[Request]) -> int:
        return sum(each.path.endswith("manifest.json") and each.start == 0 for each in read)

    with noting("read") as once:
        load_manifest(watched(target_shards), kind="targets")
    words = ("--targets", target_store, "--out", watched(target_shards), "--codec", "float16")
    for more in ((), ("--dry-run",)):
        with noting("read") as read:
            run_cli("pack-targets", *words, *more)
        assert places(read) == places(once) + 1  # whose shards they are is its beginning


def test_an_interrupted_run_goes_on(
    target_store: Path, target_shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with stopped_at_put("targets-v00-images-000002.index.npy"):
        words = ("--targets", target_store, "--out", watched(out), "--workers", 0)
        run_cli("pack-targets", *words, code=75)
    unfinished = load_manifest(str(out), kind="targets", allow_unfinished=True)
    assert len(unfinished.shards) == 3
    times = times_of(out)
    pack(target_store, out)
    assert times.items() < times_of(out).items()
    assert files_of(out) == files_of(target_shards)


def test_killed_at_any_write_it_ends_with_the_same_bytes(
    target_store: Path, tmp_path: Path
) -> None:
    pack(target_store, tmp_path / "whole", "--views", 1)
    writes, undisturbed = 0, files_of(tmp_path / "whole")
    while True:
        out = tmp_path / str(writes)
        words = ("--targets", target_store, "--views", 1, "--out")
        killed = run_and_kill(writes, "pack-targets", *words, watched(out))
        run_cli("pack-targets", *words, out)
        assert files_of(out) == undisturbed
        if not killed:
            break
        writes += 1
    assert writes >= 2 * 3 + 4


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_web_server_is_refused_at_once(
    target_store: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("pack-targets", "--targets", target_store, "--out", "http://x/targets", *more, code=1)
    assert "web servers are only read from" in capsys.readouterr().err
