"""Every stage as a command that takes a second, on what undisturbed ones before it have written."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import sameness
from tests.faults.file_systems.faulty import FaultyDisk
from tests.faults.victims import Words
from tests.support import finetune, labelled, pretrain, segment
from tests.support.clip import write_tiny_clip
from tests.support.pictures import write_ade_tree, write_picture

PICTURES = 12
Found = dict[str, Any]
OF_TIMES = ("started", "seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A command.

    Attributes:
        name: for the counts.
        words: of its command line, given where it reads and writes.
        outcome: returns what must be the same, given the output and what was said.
    """

    name: str
    words: Callable[["Small", Path], Words]
    outcome: Callable[[Path, str], Found]


class Small:
    """The small world that stages read; each part is made when it is first asked for."""

    def __init__(self, root: Path, disk: FaultyDisk) -> None:
        self.root = root
        self.disk = disk

    @functools.cached_property
    def pictures(self) -> Path:
        """A tree of two classes."""
        for number in range(PICTURES):
            name = f"{('ant', 'bee')[number % 2]}/{number:02d}.jpg"
            write_picture(self.root / "pictures" / name, number)
        return self.root / "pictures"

    @functools.cached_property
    def listed(self) -> Path:
        """A list of them."""
        names = [f"{path.relative_to(self.root)}\n" for path in self.pictures.rglob("*.jpg")]
        place = self.root / "list.txt"
        place.write_text("".join(sorted(names)))
        return place

    @functools.cached_property
    def clip(self) -> Path:
        """The folder of a tiny teacher."""
        return write_tiny_clip(self.root / "clip")

    @functools.cached_property
    def coloured(self) -> Path:
        """Labelled pictures as folders and as shards, of each `train` and `val`."""
        labelled.write_coloured(self.root / "coloured" / "train", 4)
        labelled.write_coloured(self.root / "coloured" / "val", 3, seed=1, noise=300)
        for part, count in (("train", 12), ("val", 6)):
            labelled.shards(self.root / "coloured-shards" / part, count, seed=count)
        return self.root / "coloured"

    @functools.cached_property
    def painted(self) -> Path:
        """Pictures with masks."""
        tree: Path = write_ade_tree(self.root, {"training": 8, "validation": 3})
        return tree / "images"

    @functools.cache  # noqa: B019 - there are few of these, and they live as long as the tests
    def undisturbed(self, stage: Stage) -> Path:
        """Run a stage to its end, once; return what it wrote."""
        out = self.root / "undisturbed" / stage.name.replace(" ", "-")
        self.disk.done(stage.words(self, out))
        return out

    @functools.cache  # noqa: B019
    def outcome(self, stage: Stage) -> Found:
        """Return what a stage gives undisturbed."""
        out = self.root / "outcome" / stage.name.replace(" ", "-")
        said = self.disk.done(stage.words(self, out))
        return stage.outcome(out, said)


def _said(out: Path, said: str) -> Found:
    """Return what a stage reported that writes nothing, or a page."""
    page = out.read_bytes() if out.is_file() else b""
    return {"said": said.replace(str(out), "OUT"), "page": page}


def _scored(out: Path, said: str) -> Found:
    """Return a probe's scores and answers, and the features that it kept."""
    found = sameness.files(out)
    scores = json.loads(found.pop("scores.json"))
    kept = {name: data for name, data in found.items() if not name.endswith(".json")}
    return kept | {"metrics": scores["metrics"]}


def _exported(out: Path, said: str) -> Found:
    return {name: data for name, data in sameness.files(out).items() if name != "export.json"}


def _data_set(out: Path, said: str) -> Found:
    return sameness.data_set(out)


def _run(out: Path, said: str) -> Found:
    return sameness.run(out)


def _index(small: Small, out: Path) -> Words:
    tars = f"{small.undisturbed(PACK_IMAGES)}/images-{{000000..000002}}.tar"
    return ["index", tars, "--out", out, "--workers", 1]


def _finetune(form: str) -> Callable[[Small, Path], Words]:
    def words(small: Small, out: Path) -> Words:
        data = small.coloured.with_name(form)
        more = (*finetune.TINY_VIT, *finetune.SHORT, "--checkpoint-every", 2)
        places = ("--train", data / "train", "--val", data / "val", "--out", out)
        return ["finetune", *places, *more, "--device", "cpu"]

    return words


def _probe(small: Small, out: Path) -> Words:
    data = small.coloured.with_name("coloured-shards")
    places = ("--train", data / "train", "--val", data / "val", "--out", out)
    return ["probe", "--encoder", small.undisturbed(PRETRAIN), *places, "--workers", 1]


def _segment(small: Small, out: Path) -> Words:
    images = small.painted
    places = ("--train", images / "training", "--val", images / "validation", "--out", out)
    return ["segment", *segment.TINY_VIT, *segment.SHORT, *places, "--device", "cpu"]


def _pretrain(small: Small, out: Path, *more: object) -> Words:
    return [
        *("pretrain", "--images", small.undisturbed(PACK_IMAGES), "--out", out, *more),
        *(*pretrain.TINY_STUDENT, "--workers", 0, "--batch-size", 4, "--epochs", 4),
        *("--checkpoint-every", 4, "--log-every", 1, "--device", "cpu"),
    ]


PACK_IMAGES = Stage(
    name="pack-images",
    words=lambda small, out: [
        *("pack-images", small.pictures, out, "--samples-per-shard", 5, "--workers", 1)
    ],
    outcome=_data_set,
)
PACK_LIST = Stage(
    name="pack-images of a list",
    words=lambda small, out: [
        *("pack-images", small.listed, out, "--samples-per-shard", 5, "--workers", 1)
    ],
    outcome=_data_set,
)
INDEX = Stage(name="index", words=_index, outcome=_data_set)
EXTRACT = Stage(
    name="extract-targets",
    words=lambda small, out: [
        *("extract-targets", "--images", small.undisturbed(PACK_IMAGES), "--out", out),
        *("--teacher", f"local-dir:{small.clip}", "--precision", "fp32", "--views", 2),
        *("--batch-size", 5, "--workers", 1, "--device", "cpu"),
    ],
    outcome=_data_set,
)
VERIFY = Stage(
    name="verify",
    words=lambda small, _: [*("verify", small.undisturbed(EXTRACT), "--sample", 8, "--workers", 1)],
    outcome=_said,
)
STATUS = Stage(
    name="status", words=lambda small, _: ["status", small.undisturbed(EXTRACT)], outcome=_said
)
TRANSCODE = Stage(
    name="transcode",
    words=lambda small, out: [
        *("transcode", small.undisturbed(EXTRACT), out, "--codec", "joint:bytes=4"),
        *("--workers", 1),
    ],
    outcome=_data_set,
)
PACK_TARGETS = Stage(
    name="pack-targets",
    words=lambda small, out: [
        *("pack-targets", "--targets", small.undisturbed(EXTRACT), "--out", out, "--workers", 1)
    ],
    outcome=_data_set,
)
PRETRAIN = Stage(
    name="pretrain",
    words=lambda small, out: _pretrain(small, out, "--targets", small.undisturbed(PACK_TARGETS)),
    outcome=_run,
)
PRETRAIN_CACHED = Stage(
    name="pretrain with a cache",
    words=lambda small, out: [
        *_pretrain(small, out, "--targets", small.undisturbed(PACK_TARGETS)),
        *("--cache", out / "cache", "--cache-gb", 1),
    ],
    outcome=_run,
)
PRETRAIN_PIXELS = Stage(
    name="pretrain on pixels",
    words=lambda small, out: _pretrain(small, out, "--target", "pixels"),
    outcome=_run,
)
EXPORT = Stage(
    name="export",
    words=lambda small, out: [
        *("export", small.undisturbed(PRETRAIN), "--form", "timm", "--out", out)
    ],
    outcome=_exported,
)
FINETUNE = Stage(name="finetune", words=_finetune("coloured"), outcome=_run)
FINETUNE_SHARDS = Stage(name="finetune on shards", words=_finetune("coloured-shards"), outcome=_run)
SEGMENT = Stage(name="segment", words=_segment, outcome=_run)
PROBE = Stage(name="probe", words=_probe, outcome=_scored)
COMPARE = Stage(
    name="compare",
    words=lambda small, out: [
        *("compare", small.undisturbed(PROBE), small.undisturbed(FINETUNE), "--out", out)
    ],
    outcome=_said,
)
INSPECT = Stage(
    name="inspect",
    words=lambda small, out: [
        *("inspect", small.undisturbed(EXTRACT), "--images", small.undisturbed(PACK_IMAGES)),
        *("--html", out.with_suffix(".html")),
    ],
    outcome=lambda out, said: _said(out.with_suffix(".html"), said),
)

STAGES = (
    *(PACK_IMAGES, PACK_LIST, INDEX, EXTRACT, VERIFY, STATUS, TRANSCODE, PACK_TARGETS, PRETRAIN),
    *(PRETRAIN_CACHED, PRETRAIN_PIXELS, EXPORT, FINETUNE, FINETUNE_SHARDS, SEGMENT, PROBE),
    *(COMPARE, INSPECT),
)
