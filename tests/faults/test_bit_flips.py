"""One bit at a time: what was damaged is named before a wrong number gets anywhere."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.codec_files import (
    read_shards_codec,
    read_store_codec,
    write_shards_codec,
    write_store_codec,
)
from milan_pipeline.training.checkpoints import HASHES, MODEL, OPTIMISER
from tests.faults.campaign import COUNTS, attempt, broken, chance, flipped, scaled
from tests.faults.consumers import arrays_of, encoder_of, packed, resumed, trained_on
from tests.support.fitted import fitted
from tests.support.runs import saved
from tests.support.students import write_encoder

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


def test_chunks_of_the_store(world) -> None:
    chunks = [path for path in (world.store / UNIT).rglob("c/**/*") if path.is_file()]
    flip_and_read(
        "bit: store's chunk", chunks, world.store, lambda: arrays_of(world.store, UNIT),
        count=scaled(400, 60),
    )  # fmt: skip


def test_metadata_of_the_store(world, tmp_path: Path) -> None:
    """The arrays' and the unit's, the view's, and the root's, which says what the targets are."""
    metadata = [*(world.store / UNIT).rglob("zarr.json"), world.store / "zarr.json"]
    metadata.append(world.store / "view-00/zarr.json")
    flip_and_read(
        "bit: Zarr's metadata", metadata, world.store,
        lambda: (arrays_of(world.store, UNIT), packed(world.store, tmp_path, UNIT)),
        count=scaled(200, 40), names=(str(world.store),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "file", "name"),
    [
        ("unit's mark", f"done/{UNIT}.json", UNIT),
        ("stage's record", "extract-targets.json", "extract-targets.json"),
    ],
)
def test_what_says_what_a_store_holds(world, tmp_path: Path, what, file, name) -> None:
    """A mark has no hash of its own; what it says is checked against all else."""
    flip_and_read(
        f"bit: {what}", [world.store / file], world.store,
        lambda: [shard.sha256 for shard in packed(world.store, tmp_path)],
        count=scaled(200, 30), names=(name,),
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
        f"bit: {kind[:-1]} {what}", files, folder,
        lambda: trained_on(world.images, world.targets), count=scaled(100, 12),
    )  # fmt: skip


@pytest.mark.parametrize("name", [MODEL, OPTIMISER, HASHES])
def test_checkpoints(tmp_path: Path, name: str) -> None:
    saved(tmp_path, [3])
    folder = tmp_path / "checkpoints/step-00000003"
    flip_and_read(
        f"bit: checkpoint's {name}", [folder / name], tmp_path, lambda: resumed(folder),
        count=scaled(100, 40), names=(folder.name,),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json", "encoder.sha256"])
def test_exported_weights(tmp_path: Path, name: str) -> None:
    write_encoder(tmp_path)
    flip_and_read(
        f"bit: {name}", [tmp_path / name], tmp_path, lambda: encoder_of(tmp_path),
        count=scaled(100, 20),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("where", "write", "read"),
    [
        ("beside shards", write_shards_codec, read_shards_codec),
        ("in a store", write_store_codec, read_store_codec),
    ],
)
def test_a_codec_s_arrays(tmp_path: Path, where: str, write, read) -> None:
    codec = fitted("joint:bytes=4")
    write(str(tmp_path), codec)

    def consume() -> dict[str, bytes]:
        again = read(str(tmp_path), {"codec": codec.parameters()})
        return {name: values.tobytes() for name, values in again.arrays.items()}

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    flip_and_read(
        f"bit: codec's arrays {where}", files, tmp_path, consume,
        count=scaled(100, 20), names=("codec",),
    )  # fmt: skip
