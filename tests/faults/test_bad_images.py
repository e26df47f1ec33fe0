"""Bad images are decoded or refused for a reason, in little time and memory; stages list them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from milan_pipeline.errors import BadImageError
from milan_pipeline.images.decode import decode_rgb, probe_header
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import load_manifest
from tests.faults.campaign import COUNTS, chance, scaled
from tests.faults.decoding import LIMIT, Decoder
from tests.faults.fuzzed_images import fuzzed, odd, seeds
from tests.faults.image_bombs import bombs
from tests.support.cli import run_cli
from tests.support.pretrain import SHORT, TINY_STUDENT

FUZZED = scaled(2000, 120)
IN_A_FOLDER = scaled(400, 60)
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp"}


@pytest.fixture
def decoder(tmp_path: Path) -> Iterator[Decoder]:
    """A process that decodes, which must have nothing to say but its verdicts."""
    errors = tmp_path / "errors.txt"
    found = Decoder(errors)
    yield found
    found.close()
    assert errors.read_text() == ""


Images = Iterable[tuple[str, bytes]]


def judged(kind: str, images: Images, decoder: Decoder, *, compare: bool) -> None:
    """Count what becomes of images.

    Refused with a reason is detected; decoded is harmless if Pillow by itself has the same pixels.
    What Pillow can decode may be refused for a limit alone.
    """
    count = COUNTS[kind]
    for case, data in images:
        count.tried += 1
        found = decoder(data, compare=compare)
        reason, like = found["reason"], found.get("as")
        if found.get("warnings"):
            count.fail(case, f"warnings escape: {found['warnings']}")
        elif found["verdict"] == "refused" and reason and "\n" not in reason:
            if like in (None, "none") or LIMIT in reason:
                count.detected += 1
            else:
                count.fail(case, f"Pillow decodes what is refused: {reason}")
        elif found["verdict"] == "decoded" and like in (None, "equal"):
            count.harmless += 1
        else:
            count.fail(case, f"{found}", silent=found["verdict"] == "decoded")
    count.require_none_failed()


@pytest.mark.parametrize("family", EXTENSIONS)
def test_fuzzed(family, decoder) -> None:
    kind = f"image, fuzzed {family}"
    judged(kind, fuzzed(family, chance(kind), FUZZED), decoder, compare=True)
    assert COUNTS[kind].detected > FUZZED // 10
    assert COUNTS[kind].harmless > FUZZED // 10


def test_odd(decoder) -> None:
    judged("image, odd", odd(), decoder, compare=True)


def test_bombs(decoder) -> None:
    """Pillow by itself would take for ever on some, so they are not compared."""
    judged("image, bomb", bombs(), decoder, compare=False)


# ---- through the stages


def verdict(data: bytes) -> str:
    """Say what must become of an image: packed away by its header, skipped by its pixels, kept."""
    try:
        probe_header(data)
    except BadImageError:
        return "packed away"
    try:
        decode_rgb(data)
    except BadImageError:
        return "skipped"
    return "kept"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Fuzzed images of all families, a few sound ones, and what must become of each, by its key."""
    root, kind = tmp_path_factory.mktemp("fuzzed"), "image, in a folder"
    verdicts = {}
    for family, extension in EXTENSIONS.items():
        images = [*fuzzed(family, chance(kind), IN_A_FOLDER), *seeds()[family].items()]
        for number, (_, data) in enumerate(images):
            path = root / f"{family}-{number:04d}.{extension}"
            path.write_bytes(data)
            verdicts[path.stem] = verdict(data)
    return root, verdicts


def listed(rows: Iterable[dict[str, str]]) -> list[str]:
    """Return the keys of a ledger, each of which has a reason."""
    rows = list(rows)
    assert all(row["reason"] and "\n" not in row["reason"] for row in rows)
    return sorted(row["key"] for row in rows)


def test_every_file_of_a_folder_is_used_or_in_a_ledger(folder, tiny_clip, tmp_path) -> None:
    """By pack-images, extract-targets, pretrain on pixels: each counts exactly what it left out."""
    root, verdicts = folder
    count = COUNTS["image, fuzzed, through stages"]
    count.tried = len(verdicts)
    shards, store, run = tmp_path / "shards", tmp_path / "t.zarr", tmp_path / "run"
    every = ("--max-bad-fraction", 1)
    run_cli("pack-images", root, shards, "--samples-per-shard", 100, *every)
    teacher = ("--teacher", f"local-dir:{tiny_clip}", "--batch-size", 8)
    run_cli("extract-targets", "--images", shards, "--out", store, *teacher, *every)
    run_cli(
        "pretrain", "--target", "pixels", "--image-size", 32, "--images", shards, "--out", run,
        *TINY_STUDENT, *SHORT, *every, "--epochs", 2,
    )  # fmt: skip
    manifest = load_manifest(str(shards), kind="images")
    packed_away = listed(row for shard in manifest.shards for row in shard.details["skipped"])
    marks = [json.loads(path.read_bytes()) for path in sorted(store.glob("done/*/*.json"))]
    skipped = listed(row for mark in marks for row in mark["skipped"])
    unreadable = listed(json.loads((run / "unreadable-train.json").read_bytes()))
    keys = [key for shard in manifest.shards for key in keys_of(load_index(manifest, shard))]

    def expected(*what: str) -> list[str]:
        return sorted(key for key, found in verdicts.items() if found in what)

    assert packed_away == expected("packed away")
    assert sorted(keys) == expected("skipped", "kept")
    assert skipped == expected("skipped")
    assert set(unreadable) <= set(skipped)  # an epoch leaves a few samples out
    assert sum(mark["n"] for mark in marks) == len(expected("kept")) > len(verdicts) // 10
    count.detected, count.harmless = len(packed_away) + len(skipped), len(expected("kept"))
