"""Each way to lose one side of a pair is refused by its cause; no wrong pair reaches a batch."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from milan_pipeline.shards.writer import Sample, write_shard
from tests.faults.campaign import COUNTS, attempt
from tests.faults.consumers import trained_on
from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip

KIND = "pair: one side of it"
Change = Callable[[Manifest], list[Shard]]


def repacked(manifest: Manifest, change: Callable[[list[Sample]], list[Sample]]) -> list[Shard]:
    """Write the first shard anew of other samples, index and hashes and all."""
    first = manifest.shards[0]
    samples = change(list(iterate_shard(manifest, first)))
    shard = write_shard(manifest.folder, first.name, samples)
    return [dataclasses.replace(shard, details=first.details), *manifest.shards[1:]]


def swapped(manifest: Manifest) -> list[Shard]:
    """List the tars of two shards under each other's details."""
    first, second, *rest = manifest.shards
    return [
        dataclasses.replace(first, details=second.details),
        dataclasses.replace(second, details=first.details),
        *rest,
    ]


def exchanged(samples: list[Sample]) -> list[Sample]:
    """Give the first two samples each other's bytes under their own keys."""
    first, second, *rest = samples
    return [first._replace(members=second.members), second._replace(members=first.members), *rest]


def renamed(samples: list[Sample]) -> list[Sample]:
    return [samples[0]._replace(key="another"), *samples[1:]]


IMAGES: dict[str, Change] = {
    "a shard is not listed": lambda m: list(m.shards[1:]),
    "a shard is listed twice": lambda m: [*m.shards, m.shards[0]],
    "a key is missing": lambda m: repacked(m, lambda samples: samples[1:]),
    "a key is renamed": lambda m: repacked(m, renamed),
    "two images are exchanged": lambda m: repacked(m, exchanged),
    "keys are reordered": lambda m: repacked(m, lambda samples: samples[::-1]),
}
TARGETS: dict[str, Change] = {
    "a shard is not listed": lambda m: list(m.shards[1:]),
    "shards are reordered": lambda m: list(m.shards[::-1]),
    "a shard is listed twice": lambda m: [*m.shards, m.shards[0]],
    "a shard is of another view, twice": lambda m: [
        *m.shards,
        dataclasses.replace(m.shards[-1], details=m.shards[0].details),
    ],
    "two shards are swapped": swapped,
    "a view is missing a shard": lambda m: list(m.shards[:-1]),
}


def consume(world, expected, named, side, *, case, change) -> None:
    folder = getattr(world, side)
    with kept(folder):
        manifest = load_manifest(str(folder), kind=side)
        dataclasses.replace(manifest, shards=tuple(change(manifest))).save()
        attempt(
            KIND, f"{side}: {case}", lambda: trained_on(world.images, world.targets),
            names=named, expected=expected,
        )  # fmt: skip


def mixed_in(targets: Path, others: Path) -> None:
    """List the first of other shards, which lies here already, in the place of one's own."""
    ours, theirs = (load_manifest(str(folder), kind="targets") for folder in (targets, others))
    dataclasses.replace(ours, shards=(theirs.shards[0], *ours.shards[1:])).save()


class kept:  # noqa: N801 - reads as the context that it is
    """Puts a folder back as it was."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy = folder, folder.with_name(f"{folder.name}.kept")

    def __enter__(self) -> None:
        shutil.copytree(self.folder, self.copy)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)
        self.copy.rename(self.folder)


def test_one_side_is_changed(world) -> None:
    """Hashes and manifests are made to fit, so that nothing but the pairing itself can tell."""
    expected = trained_on(world.images, world.targets)
    for side, changes in (("images", IMAGES), ("targets", TARGETS)):
        manifest = load_manifest(str(getattr(world, side)), kind=side)
        named = [shard.details.get("source", shard.stem) for shard in manifest.shards]
        for case, change in changes.items():
            consume(world, expected, named, side, case=case, change=change)
    COUNTS[KIND].require_none_failed()


@pytest.mark.parametrize("side", ["images", "targets"])
@pytest.mark.parametrize("suffix", [".tar", ".index.npy"])
def test_files_are_missing_swapped_or_doubled(world, side, suffix) -> None:
    expected = trained_on(world.images, world.targets)
    folder = getattr(world, side)
    first, second = (
        folder / shard.name.replace(".tar", suffix)
        for shard in load_manifest(str(folder), kind=side).shards[:2]
    )

    def tried(case: str) -> None:
        attempt(
            KIND, f"{side}: {case} {suffix}", lambda: trained_on(world.images, world.targets),
            names=[first.name, second.name], expected=expected,
        )  # fmt: skip

    with kept(folder):
        first.unlink()
        tried("missing")
    with kept(folder):
        a, b = first.read_bytes(), second.read_bytes()
        first.write_bytes(b)
        tried("doubled")
        second.write_bytes(a)
        tried("swapped")
    COUNTS[KIND].require_none_failed()


def test_images_are_exchanged_behind_every_hash_but_their_own(world) -> None:
    """A stale digest: the targets' manifest is made to name the changed shard, too."""
    expected = trained_on(world.images, world.targets)
    with kept(world.images), kept(world.targets):
        images = load_manifest(str(world.images), kind="images")
        shards = repacked(images, exchanged)
        dataclasses.replace(images, shards=tuple(shards)).save()
        targets = load_manifest(str(world.targets), kind="targets")
        known = {shard.stem: shard.sha256 for shard in shards}
        fitting = (
            dataclasses.replace(
                shard, details={**shard.details, "source_sha256": known[shard.details["source"]]}
            )
            for shard in targets.shards
        )
        dataclasses.replace(targets, shards=tuple(fitting)).save()
        attempt(
            KIND, "images: two are exchanged, and the targets' manifest fits",
            lambda: trained_on(world.images, world.targets),
            names=["was made from other image bytes"], expected=expected,
        )  # fmt: skip
    COUNTS[KIND].require_none_failed()


def test_targets_of_another_seed_or_teacher(world, image_shards, tiny_clip, tmp_path) -> None:
    """Their files under the names of the right ones; and the stages, asked to mix them."""
    expected = trained_on(world.images, world.targets)
    other = write_tiny_clip(tmp_path / "clip", seed=1)
    for case, clip, seed in (("another teacher", other, 0), ("another seed", tiny_clip, 1)):
        store, packs = tmp_path / f"{case}.zarr", tmp_path / case
        words = ("--images", image_shards, "--teacher", f"local-dir:{clip}", "--views", 2)
        run_cli("extract-targets", *words, "--out", store, "--view-seed", seed, "--batch-size", 4)
        run_cli("pack-targets", "--targets", store, "--out", packs)
        first = load_manifest(str(packs), kind="targets").shards[0].name
        with kept(world.targets):
            for name in (first, first.replace(".tar", ".index.npy")):
                shutil.copy(packs / name, world.targets / name)
                attempt(
                    KIND, f"a shard of {case}", lambda: trained_on(world.images, world.targets),
                    names=[Path(first).stem], expected=expected,
                )  # fmt: skip
            run_cli("pack-targets", "--targets", store, "--out", world.targets, code=1)
            mixed_in(world.targets, packs)
            attempt(
                KIND, f"a shard of {case}, listed with its right hashes",
                lambda: trained_on(world.images, world.targets),
                names=["identity_hash"], expected=expected,
            )  # fmt: skip
        with kept(world.store):
            run_cli("extract-targets", *words, "--out", world.store, "--view-seed", seed, code=1)
    COUNTS[KIND].require_none_failed()
