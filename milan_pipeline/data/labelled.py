"""A table of labelled samples in image shards or in a folder.

A label is a class number, or a mask: an image of class numbers. The `kind` tells which of the two.
"""

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.data.labelled_folder import scan_folder
from milan_pipeline.data.labelled_shards import labelled_shards
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.manifest import MANIFEST_NAME, holds_manifest, load_manifest
from milan_pipeline.shards.random_access import IMAGE_MEMBER, Place, Read, all_local, read_places

Kind = Literal["class", "mask"]


class LabelledPart(Protocol):
    """Samples that lie together, in a shard or a folder."""

    @property
    def url(self) -> str:
        """The place that errors name."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) class numbers; zeros where labels are masks."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def key(self, row: int) -> str:
        """Return a sample's key."""

    def name(self, row: int) -> str:
        """Return what people call a sample: SHARD/KEY, or its path in the folder."""
        ...

    def lengths(self) -> NDArray[np.int64]:
        """Return the bytes of each image, (n,)."""
        ...

    def digest(self, row: int) -> int:
        """Return the xxh3-64 of an image's bytes."""
        ...

    def image(self, row: int, read: Read) -> bytes:
        """Read a sample's image."""

    def mask(self, row: int, read: Read) -> bytes:
        """Read a sample's mask."""

    def take(self, rows_n: NDArray[np.int64]) -> "LabelledPart":
        """Return the part with only these samples, in this order."""

    def shuffled(self, seed: int) -> "LabelledPart":
        """Return the part in a drawn order, if that is as fast to read; else as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledTable:
    """Labelled samples in parts, each a shard or a folder; see `random_access.SampleTable`.

    Attributes:
        parts: in order.
        kind: what a label is.
        classes: names of the class numbers, where they are known.
        source: hash of the content that the samples were read from.
    """

    parts: Sequence[LabelledPart]
    kind: Kind
    classes: tuple[str, ...]
    source: str
    cycle: int = 1

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(len(part) for part in self.parts)

    @property
    def class_count(self) -> int:
        """The number of classes: as many as are named, or up to the largest number in use."""
        largest = max((int(part.labels.max()) for part in self.parts if len(part)), default=-1)
        return max(len(self.classes), largest + 1)

    def counts(self, view: int) -> NDArray[np.int64]:
        """Return the number of samples in each part."""
        del view  # every epoch has the same samples
        return np.array([len(part) for part in self.parts], dtype=np.int64)

    def names(self) -> Iterator[str]:
        """Yield what people call each sample, in order."""
        return (part.name(row) for part in self.parts for row in range(len(part)))

    def places(self, world: World | None = None) -> Iterator[Place]:
        """Yield the places of the samples in order; of several processes, this one's share."""
        world = world or World()
        places = (
            Place(0, 0, number, row)
            for number, part in enumerate(self.parts)
            for row in range(len(part))
        )
        return (place for at, place in enumerate(places) if at % world.size == world.rank)

    def read(
        self, places: Iterator[Place], cache: CacheConfig | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Yield samples: `__key__`, `__url__`, `epoch`, `number`, `image`, `label` or `mask`.

        The number is the sample's place in the table, from 0.
        """
        firsts = np.cumsum([0, *self.counts(0)]).tolist()

        def fetch(place: Place, read: Read) -> dict[str, Any]:
            part = self.parts[place.shard]
            sample: dict[str, Any] = {
                "__key__": part.key(place.row),
                "__url__": part.url,
                "epoch": place.epoch,
                "number": firsts[place.shard] + place.row,
                IMAGE_MEMBER: part.image(place.row, read),
            }
            if self.kind == "class":
                return sample | {"label": int(part.labels[place.row])}
            return sample | {"mask": part.mask(place.row, read)}

        local = all_local(part.url for part in self.parts)
        return read_places(places, fetch, local=local, cache=cache)

    def subset(self, fraction: float, seed: int) -> "LabelledTable":
        """Take a share of each class, drawn by the hash of the keys; at least one sample of each.

        Of samples with masks, it is a share of all. With the same seed, a larger share contains a
        smaller one. The source stays the same, since the options tell share and seed.

        Raises:
            ConfigError: the share is not within 0 to 1.
        """
        if not 0 < fraction <= 1:
            raise ConfigError(f"a share {fraction} of the labels is not within 0 to 1; give 1")
        if fraction == 1:
            return self
        rows = [(number, row) for _, _, number, row in self.places()]
        labels = [int(self.parts[number].labels[row]) for number, row in rows]
        draws = [
            xxhash.xxh3_64_intdigest(f"{seed} {number} {self.parts[number].key(row)}".encode())
            for number, row in rows
        ]
        kept: list[tuple[int, int]] = []
        by_class: dict[int, list[int]] = {}
        for at, label in enumerate(labels):
            by_class.setdefault(label, []).append(at)
        for members in by_class.values():
            members.sort(key=draws.__getitem__)
            kept += [rows[at] for at in members[: max(1, round(fraction * len(members)))]]
        rows_of: list[list[int]] = [[] for _ in self.parts]
        for number, row in sorted(kept):
            rows_of[number].append(row)
        parts = [
            part.take(np.array(rows, dtype=np.int64))
            for part, rows in zip(self.parts, rows_of, strict=True)
        ]
        return dataclasses.replace(self, parts=parts)

    def shuffled(self, seed: int) -> "LabelledTable":
        """Permute the files of a folder, since `order` shuffles only samples that lie close.

        Image shards stay as they are, since `pack-images` has shuffled them.
        """
        return dataclasses.replace(self, parts=[part.shuffled(seed) for part in self.parts])


def open_labelled(
    place: str, *, kind: Kind, scans: Path | None = None, masks: str | None = None
) -> LabelledTable:
    """Open labelled samples.

    Args:
        place: a folder of image shards with a manifest; their samples have `.cls` or `.mask.png`
            members. Or a folder of image files: one sub-folder a class, or, for masks, any tree.
        kind: whether labels are class numbers or masks.
        scans: local folder that keeps the labels found in shards, so that the shards need not be
            read from end to end again.
        masks: folder of the masks, which have the images' paths with the ending `.png`; None is
            ADE20K's layout: the masks of `images/…` are in `annotations/…` beside it.

    Raises:
        ConfigError: there is no such folder, or it has no classes.
        DataError: a shard is damaged, or a sample has no label.
        MissingDataError: an image has no mask.
    """
    if holds_manifest(place):
        manifest = load_manifest(place, kind="images")
        shards = labelled_shards(manifest, kind=kind, scans=scans)
        classes = tuple(manifest.common.get("classes", ()))
        table = LabelledTable(parts=shards, kind=kind, classes=classes, source=manifest.sha256)
    else:
        root = storage.local_path(place)
        if root is None or not root.is_dir():
            make = "give one, or make shards with `milan-pipeline pack-images`"
            raise ConfigError(
                f"{place} is neither a folder of image shards with {MANIFEST_NAME} nor a local "
                f"folder; {storage.give_enclosing(place, MANIFEST_NAME) or make}"
            )
        part, classes, source = scan_folder(root, kind=kind, masks=masks)
        table = LabelledTable(parts=[part], kind=kind, classes=classes, source=source)
    if not table.samples:
        raise DataError(f"{place} has no labelled image; give another folder")
    return table


def decoded_image(sample: dict[str, Any]) -> Image.Image:
    """Decode a sample's image.

    Raises:
        BadImageError: the image cannot be decoded.
    """
    return Image.fromarray(decode_rgb(sample[IMAGE_MEMBER], sample["__key__"]))
