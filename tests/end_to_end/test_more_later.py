"""More shards or views for what is finished: only what is missing is done, the rest untouched."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.cli import run_cli
from tests.support.pretrain import extract_and_pack, pretrain, weights


def times_of(folder: Path) -> dict[str, int]:
    """When each file that a unit or a shard is made of was written last."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
        and len(path.relative_to(folder).parts) > 1
        and path.parent.name not in ("done", "progress")
    }


def units_done(out: Path) -> int:
    counts = json.loads((out / "t.zarr/extract-targets.json").read_text())["counts"]
    return int(counts["units_done_now"])


def test_added_shards_cost_only_their_own_units_and_tars(
    image_shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()

    def add(number: int) -> None:
        shutil.copy(image_shards / f"images-00000{number}.tar", images)
        run_cli("index", *sorted(images.glob("*.tar")))

    add(0)
    add(1)
    targets = extract_and_pack(images, tiny_clip, tmp_path, "--views", 2)
    assert units_done(tmp_path) == 4
    before = times_of(tmp_path / "t.zarr"), times_of(targets)
    add(2)
    extract_and_pack(images, tiny_clip, tmp_path, "--views", 2)
    assert units_done(tmp_path) == 2
    after = times_of(tmp_path / "t.zarr"), times_of(targets)
    for old, new in zip(before, after, strict=True):
        # A view's own group is written with each of its units.
        groups = {f"view-0{view}/zarr.json" for view in range(2)}
        assert {name: new[name] for name in old.keys() - groups} == {
            name: time for name, time in old.items() if name not in groups
        }
        assert new.keys() > old.keys()
        assert all("images-000002" in name for name in new.keys() - old.keys())
    whole = extract_and_pack(image_shards, tiny_clip, tmp_path / "whole", "--views", 2)
    tars = sorted(path.relative_to(whole) for path in whole.rglob("*.tar"))
    assert len(tars) == 6
    assert all((targets / tar).read_bytes() == (whole / tar).read_bytes() for tar in tars)


@pytest.mark.parametrize("views", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_goes_on_with_the_views_it_knew(
    views: int, image_shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    def run(name: str, packed: int, *more: object) -> None:
        targets = extract_and_pack(image_shards, tiny_clip, tmp_path, "--views", packed)
        pretrain(image_shards, targets, tmp_path / name, *more)

    run("stopped", views, "--max-steps", 5)
    run("undisturbed", views)
    run("stopped", views + 1)
    run("with-more", views + 1)
    record = json.loads((tmp_path / "stopped/config.json").read_text())
    assert record["content"]["views"] == views
    assert weights(tmp_path / "stopped") == weights(tmp_path / "undisturbed")
    assert weights(tmp_path / "stopped") != weights(tmp_path / "with-more")
