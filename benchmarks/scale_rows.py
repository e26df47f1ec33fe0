"""What `benchmarks.scale` measures: each row prepares its data, and returns what is timed."""

import contextlib
import dataclasses
import functools
import hashlib
import shutil
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scale_data import SAMPLES
from benchmarks.scale_world import IMAGES, PACKED, STORE, extraction, opened_world
from benchmarks.virtual_store import Bucket, open_bucket
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.data.order import EpochOrder, OrderChoice, OrderConfig, lanes_of
from milan_pipeline.data.stream import SampleSource, step_clock
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.shards.index import index_bytes, index_table
from milan_pipeline.shards.labels import Label
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.stages.extract_targets.plan import describe
from milan_pipeline.stages.extract_targets.run import extract
from milan_pipeline.stages.pack_images import PackImages, dry_run
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.stages.pack_targets.run import pack
from milan_pipeline.stages.verify.command import Verify
from milan_pipeline.stages.verify.store import StoreParts
from milan_pipeline.targets.layout import UnitBlock
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.status import read_status
from milan_pipeline.targets.transcoding import Recoder, new_codec
from milan_pipeline.targets.units import Unit
from milan_pipeline.targets.writer import UnitWriter

WORLD, BATCH, BLOCK = 512, 4096, 4096  # 64 nodes of 8 GPUs
MOST_LINKS = 30_000
"""Disks take no more than 65,000 links to a file."""
LABELLED_SHARDS, CLASSES = 1281, 1000  # as ImageNet-1K, packed


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much data each row is of; `root` holds what was written once."""

    root: Path
    shards: int
    files: int
    units: int


Measured = tuple[Callable[[], object], Bucket | None]
Row = Callable[[Sizes], contextlib.AbstractContextManager[Measured]]


def of_world(
    function: Callable[[Path], object], *, done: float = 1.0, known_marks: bool = True
) -> Row:
    """Return a row that does something with the shared data set."""

    @contextlib.contextmanager
    def row(sizes: Sizes) -> Iterator[Measured]:
        with opened_world(sizes.root, sizes.shards, done=done, known_marks=known_marks) as bucket:
            yield functools.partial(function, sizes.root), bucket

    return row


def start(root: Path, *, rank: int, share: float) -> None:
    """Open the data of `pretrain` and read a rank's samples of one step."""
    del root
    order = OrderChoice(batch=BATCH, lanes=WORLD, block=BLOCK, seed=0)
    data = open_run_data(IMAGES, {"": PACKED}, views=None, on_missing="error", order=order)
    _ = data.inputs, data.shuffled_bytes
    step = int(share * step_clock(data.samples, data.order).steps[0])
    lanes = lanes_of(rank, WORLD, range(WORLD))
    source = SampleSource(data.samples, data.order, lanes=lanes, steps=range(step, step + 1))
    if len(list(source)) != BATCH // WORLD:
        raise SystemExit("a step has another number of samples")


@contextlib.contextmanager
def epoch_order(sizes: Sizes) -> Iterator[Measured]:
    """Order all samples that one rank sees in an epoch."""

    def order() -> None:
        config = OrderConfig(seed=0, batch=BATCH, lanes=WORLD, block=BLOCK)
        epoch = EpochOrder(np.full(sizes.shards, SAMPLES, np.int64), config, 0)
        for block in range(-(-epoch.steps * config.per_lane // config.block)):
            epoch.lane_block(WORLD - 1, block)

    yield order, None


@contextlib.contextmanager
def finetune_start(sizes: Sizes) -> Iterator[Measured]:
    """Open ImageNet-sized shards whose indices have labels; the tars are empty."""
    folder, shards = sizes.root / "labelled", []
    folder.mkdir(exist_ok=True)
    rows = [(f"image-{row:04d}", 512 + row * 111_000, 110_000, row) for row in range(SAMPLES)]
    table = index_table(rows, [Label(number=row % CLASSES) for row in range(SAMPLES)])
    for number in range(LABELLED_SHARDS):
        name = f"images-{number:06d}"
        table["xxh3"] = np.arange(SAMPLES) + number * SAMPLES
        data = index_bytes(table)
        (folder / f"{name}.index.npy").write_bytes(data)
        (folder / f"{name}.tar").touch()  # it is looked for, and not read
        shards.append(_shard(f"{name}.tar", index=data))
    common = {"classes": [f"class {number}" for number in range(CLASSES)]}
    listed = Manifest(kind="images", folder=str(folder), shards=tuple(shards), common=common)
    listed.save()
    yield lambda: open_labelled(str(folder), kind="class").shuffled(0), None


def _shard(name: str, index: bytes = b"") -> Shard:
    sha256 = hashlib.sha256(index).hexdigest()
    return Shard(name=name, samples=SAMPLES, bytes=1 << 27, sha256=sha256, index_sha256=sha256)


class _Alike(dict[str, bytes]):
    """Objects of one unit, which all units have."""

    def get(self, key: str, default: Any = None) -> Any:
        _, view, _, path = key.split("/", 3)
        return super().get(f"float16/{view}/unit/{path}", default)


@contextlib.contextmanager
def transcode_high(sizes: Sizes) -> Iterator[Measured]:
    """Fit `high` to a store of ImageNet-sized float16 units, and encode a part of one with it.

    Each search has one round, since each takes as much memory as the first.
    """
    codec, url = make_codec("float16"), "virtual://transcoding/float16"
    with open_bucket("transcoding") as bucket:
        unit = Unit(0, _shard("unit.tar"))
        writer = UnitWriter(url, unit, identity_hash="id", codec=codec, shape=(197, 512))
        generator = torch.Generator().manual_seed(0)
        for at in range(0, SAMPLES, 200):
            tokens_nND = torch.randn(200, 197, 512, generator=generator)
            writer.add(_block(at, codec.encode(tokens_nND).codes_nNC.numpy()))
        mark = writer.finish([])
        del writer
        bucket.objects = _Alike(bucket.objects)
        shards = [_shard(f"unit-{number:04d}.tar") for number in range(sizes.units)]
        units = [(Unit(0, shard), dataclasses.replace(mark, shard=shard.name)) for shard in shards]

        def transcode() -> None:
            spec = parse_codec("high").for_width(512)
            with contextlib.ExitStack() as stack:
                for rounds in (
                    "fitting_kinds.ROUNDS",
                    "fitting_kinds.NESTED_ROUNDS",
                    "clusters.ROUNDS",
                ):
                    stack.enter_context(unittest.mock.patch(f"milan_pipeline.codecs.{rounds}", 1))
                high = new_codec(url, units, codec, spec, StopRequest())
            recode = Recoder(source=codec, target=high, device=torch.device("cpu"))
            recode(open_unit(url, *units[0]), range(64))

        yield transcode, bucket


def _block(at: int, codes_nNC: Any) -> UnitBlock:
    count = len(codes_nNC)
    return UnitBlock(
        key=[f"image-{row:04d}" for row in range(at, at + count)],
        codes=codes_nNC,
        scale=None,
        prior=np.full((count, 196), 1 / 196, np.float32),
        box=np.zeros((count, 4), np.float32),
        flip=np.zeros(count, np.bool_),
        size=np.ones((count, 2), np.int32),
        digest=np.zeros(count, np.uint64),
    )


def pack_images(form: str) -> Row:
    """Return a row that lists links to a few files, as `pack-images` does before the first shard.

    Args:
        form: "tree" of 100 classes, "flat" folder, or a "list" of the files of such a tree.
    """

    @contextlib.contextmanager
    def row(sizes: Sizes) -> Iterator[Measured]:
        source = sizes.root / form
        names = _link_files(source, sizes.files, classes=1 if form == "flat" else 100)
        if form == "list":
            source = source / "files.tsv"
            with source.open("w") as lines:
                lines.writelines(f"{name}\t{name.partition('/')[0]}\n" for name in names)
        del names
        yield lambda: dry_run(PackImages(source=str(source), dest=str(sizes.root / "packed"))), None
        shutil.rmtree(sizes.root / form)

    return row


def _link_files(folder: Path, count: int, *, classes: int) -> list[str]:
    """Write files, in so many folders if it is more than one; return their names."""
    names = [f"image-{number:07d}.jpg" for number in range(count)]
    if classes > 1:
        names = [f"class-{number % classes:03d}/{name}" for number, name in enumerate(names)]
    for name in names[:classes]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        if number % MOST_LINKS:
            (folder / name).hardlink_to(folder / names[number - number % MOST_LINKS])
        else:
            (folder / name).write_bytes(b"x")
    return names


ROWS: dict[str, Row] = {
    "extract_resume": of_world(lambda root: extract(extraction(root), StopRequest())),
    "extract_unknown_marks": of_world(
        lambda root: extract(extraction(root), StopRequest()), known_marks=False
    ),
    "extract_half_done": of_world(lambda root: describe(extraction(root)), done=0.5),
    "status": of_world(lambda _: read_status(STORE, now=0.0)),
    "verify_plan": of_world(lambda _: StoreParts(Verify(store=STORE, sample=0)).units),
    "pack_resume": of_world(lambda _: pack(PackTargets(targets=STORE, out=PACKED), StopRequest())),
    "pretrain_start": of_world(functools.partial(start, rank=0, share=0.0)),
    "pretrain_start_rank_511": of_world(functools.partial(start, rank=511, share=0.0)),
    "pretrain_mid_epoch": of_world(functools.partial(start, rank=511, share=0.5)),
    "epoch_order": epoch_order,
    "finetune_start": finetune_start,
    "transcode_high": transcode_high,
    "pack_images": pack_images("tree"),
    "pack_images_flat": pack_images("flat"),
    "pack_images_list": pack_images("list"),
}
"""All rows, by name."""
