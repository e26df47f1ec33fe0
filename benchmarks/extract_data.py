"""The data of `benchmarks.extract`: photo-like JPEGs as files and in shards, and two teachers."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from benchmarks.stream_data import HEIGHT, PATCHES, TARGET_WIDTH, WIDTH, photo
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.extraction.job import ExtractionJob, TargetTeacher
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.images.views import Box, Interpolation, ViewPolicy
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher

SIZE, BATCH = 224, 64
FILES = "files"
REPEATED = 64  # images of each shard where only their number matters
POLICY = ViewPolicy()


class Photos(NamedTuple):
    """The same JPEGs in memory, as files and in shards, and the boxes that are cut from them."""

    jpegs: list[bytes]
    boxes: list[Box]
    folder: Path
    manifest: Manifest


class ReadyMade:
    """A teacher that returns features made in advance, as a very fast GPU would."""

    image_size, width = SIZE, TARGET_WIDTH
    grid = (14, PATCHES // 14)
    device = torch.device("cpu")
    interpolation: Interpolation = "bicubic"

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self._targets_BND = torch.randn(BATCH, 1 + PATCHES, TARGET_WIDTH, generator=random)
        self._prior_BL = torch.rand(BATCH, PATCHES, generator=random)

    def __call__(self, pixels_BCSS: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first rows."""
        count = len(pixels_BCSS)
        return self._targets_BND[:count], self._prior_BL[:count]


def vit_b_16(precision: str) -> Teacher:
    """Build CLIP ViT-B/16 with random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16", pretrained=None)
    return Teacher(model.visual, TeacherSpec(name="ViT-B-16", precision=precision))


def make_photos(root: Path, images: int, shards: int) -> None:
    """Write `images` JPEGs under `root`, as files and in `shards` shards."""
    jpegs = [photo(number) for number in range(images)]
    (root / FILES).mkdir(parents=True)
    for number, data in enumerate(jpegs):
        (root / FILES / f"{_key(number)}.jpg").write_bytes(data)
    listed = tuple(
        write_shard(str(root / "images"), f"train-{part:06d}.tar", _samples(jpegs, numbers))
        for part, numbers in enumerate(np.array_split(np.arange(images), shards))
    )
    Manifest(kind="images", folder=str(root / "images"), shards=listed).save()


def load_photos(root: Path) -> Photos:
    """Read what `make_photos` wrote, in any process."""
    jpegs = [path.read_bytes() for path in sorted((root / FILES).glob("*.jpg"))]
    boxes = [POLICY.box(HEIGHT, WIDTH, _key(number), 0) for number in range(len(jpegs))]
    return Photos(jpegs, boxes, root / FILES, load_manifest(str(root / "images"), kind="images"))


def repeated_shards(folder: Path, shards: int, images: int = REPEATED) -> Manifest:
    """Write the same few JPEGs as so many shards of so many images."""
    drawn = [photo(number) for number in range(min(images, REPEATED))]
    jpegs = [drawn[number % REPEATED] for number in range(images)]
    samples = list(_samples(jpegs, np.arange(images)))
    listed = tuple(
        write_shard(str(folder), f"train-{part:06d}.tar", samples) for part in range(shards)
    )
    return Manifest(kind="images", folder=str(folder), shards=listed)


def extract(manifest: Manifest, teacher: TargetTeacher, store: Path, workers: int) -> int:
    """Run our extraction; return the number of images."""
    job = ExtractionJob(
        manifest=manifest,
        store=str(store),
        identity_hash="benchmark",
        teacher=teacher,
        policy=POLICY,
        codec=make_codec("int8"),
        batch_size=BATCH,
        workers=workers,
    )
    budget = BadImageBudget(fraction=0, images=manifest.samples)
    marks = extract_units(job, list_units(manifest, 1), budget, StopRequest())
    return sum(mark.n for mark in marks)


def _key(number: int) -> str:
    return f"photo-{number:06d}"


def _samples(jpegs: list[bytes], numbers: NDArray[np.int64]) -> Iterator[Sample]:
    for number in numbers.tolist():
        yield Sample(_key(number), {"jpg": jpegs[number]})
