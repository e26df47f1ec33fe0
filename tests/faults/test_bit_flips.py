"""One bit at a time: what was damaged is named before a wrong number gets anywhere."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.checkpoints import HASHES, MODEL, OPTIMISER
from milan_pipeline.manifest import load_manifest
from tests.faults.campaign import COUNTS, attempt, broken, chance, flipped, scaled
from tests.faults.consumers import arrays_of, packed, resumed, trained_on
from tests.test_checkpoints import saved

UNIT = "view-00/images-000000"


def flip_and_read(
    kind: str,
    files: Iterable[Path],
    root: Path,
    consume: Callable[[], Any],
    *,
    count: int,
    names: tuple[str, ...] = (),
) -> None:
    """Flip bits drawn by chance, each in the next of some files; the consumer reads each time."""
    paths, expected, random = sorted(files), consume(), chance(kind)
    for number in range(count):
        path = paths[number % len(paths)]
        good, place = path.read_bytes(), str(path.relative_to(root))
        bit = random.randrange(8 * len(good))
        with broken(path, flipped(good, bit)):
            case = f"bit {bit} of {place}"
            attempt(kind, case, consume, names=[place, *names], expected=expected)
    COUNTS[kind].require_none_failed()


def test_chunks_of_the_store(world, tmp_path: Path) -> None:
    chunks = [path for path in (world.store / UNIT).rglob("c/**/*") if path.is_file()]
    flip_and_read(
        "store chunk, a bit", chunks, world.store, lambda: arrays_of(world.store, UNIT),
        count=scaled(400, 60),
    )  # fmt: skip


def test_metadata_of_the_store(world, tmp_path: Path) -> None:
    """The arrays' and the unit's, the view's, and the root's, which says what the targets are."""
    metadata = [*(world.store / UNIT).rglob("zarr.json"), world.store / "zarr.json"]
    metadata.append(world.store / "view-00/zarr.json")
    flip_and_read(
        "Zarr metadata, a bit", metadata, world.store,
        lambda: (arrays_of(world.store, UNIT), packed(world.store, tmp_path, UNIT)),
        count=scaled(200, 40), names=(str(world.store),),
    )  # fmt: skip


def test_marks_of_the_store(world, tmp_path: Path) -> None:
    """A mark has no hash of its own; what it says is checked against all else."""
    flip_and_read(
        "unit's mark, a bit", [world.store / f"done/{UNIT}.json"], world.store,
        lambda: [shard.sha256 for shard in packed(world.store, tmp_path)],
        count=scaled(200, 60), names=(UNIT,),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["images", "targets"])
@pytest.mark.parametrize("what", ["shard", "index", "manifest"])
def test_what_is_trained_on(world, kind, what) -> None:
    folder = getattr(world, kind)
    suffix = {"shard": ".tar", "index": ".index.npy", "manifest": "manifest.json"}[what]
    manifest = load_manifest(str(folder), kind=kind)
    listed = [Path(manifest.url_of(shard)) for shard in manifest.shards]
    files = [
        path
        for path in folder.rglob(f"*{suffix}")
        if what == "manifest" or Path(str(path).removesuffix(suffix) + ".tar") in listed
    ]
    flip_and_read(
        f"{kind[:-1]} {what}, a bit", files, folder,
        lambda: trained_on(world.images, world.targets), count=scaled(100, 12),
    )  # fmt: skip


@pytest.mark.parametrize("name", [MODEL, OPTIMISER, HASHES])
def test_checkpoints(tmp_path: Path, name: str) -> None:
    saved(tmp_path, [3])
    folder = tmp_path / "checkpoints/step-00000003"
    flip_and_read(
        f"checkpoint's {name}, a bit", [folder / name], tmp_path, lambda: resumed(folder),
        count=scaled(100, 40), names=(folder.name,),
    )  # fmt: skip
