"""Judges what was found in tars that others made, once all of them are indexed."""

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import zip_longest

from milan_pipeline import storage
from milan_pipeline.core.console import warn
from milan_pipeline.core.counting import counted, has
from milan_pipeline.errors import DataError, MilanError
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.sequential import NO_EXTENSION

ALWAYS_TOLERATED = 10
"""Samples without an image, since tars hold a few files that are none; see --max-bad-fraction."""


def require_images(manifest: Manifest, *, max_bad_fraction: float) -> None:
    """Refuse tars of which much was left out; say so where it is little but a large share.

    The manifest of refused tars is saved as not complete.

    Args:
        manifest: of all the tars.
        max_bad_fraction: largest share of samples that may have no image.

    Raises:
        DataError: there is no image, or more samples lack one than are allowed.
    """
    lost = [
        f"{shard.stem}: {row['key']:.100} {row['reason']}"
        for shard in manifest.shards
        for row in shard.details.get("skipped", ())
        if row["reason"] != NO_EXTENSION
    ]
    samples = manifest.samples + len(lost)
    if not manifest.samples:
        dataclasses.replace(manifest, complete=False).save()
        such = f" ({lost[0]})" if lost else ""
        what = f"the tars of {manifest.folder} hold no image{such}"
        raise DataError(f"{what}; give tars of image files, not of links")
    allowed = max_bad_fraction * samples
    if len(lost) <= allowed:
        return
    what = (
        f"{len(lost)} of {samples} samples in {manifest.folder} {has(len(lost))} no image "
        f"({lost[0]})"
    )
    if max_bad_fraction and len(lost) <= ALWAYS_TOLERATED:
        warn(f"{what}; {'it is' if len(lost) == 1 else 'they are'} left out")
        return
    dataclasses.replace(manifest, complete=False).save()
    raise DataError(
        f"{what}, more than --max-bad-fraction {max_bad_fraction} allows; name the images "
        "with --image-field, or raise the fraction to leave these out"
    )


def warn_of_copies(manifest: Manifest) -> None:
    """Say so where two tars are the same, whose images would come twice."""
    seen: dict[str, str] = {}
    copies = [s.stem for s in manifest.shards if seen.setdefault(s.sha256, s.stem) != s.stem]
    if copies:
        first = next(shard for shard in manifest.shards if shard.stem == copies[0])
        warn(
            f"{counted(len(copies), 'tars')} of {manifest.folder} repeat others ({first.stem} is a "
            f"copy of {seen[first.sha256]}), so that images come twice; index each tar once"
        )


def shared_classes(urls: Iterable[str], *, known: Mapping[str, list[str]]) -> list[str]:
    """Return the names of the classes of tars that `pack-images` wrote; none if not all have them.

    Where those of two folders differ, equal numbers are not equal classes: a warning says so.

    Args:
        urls: of the tars.
        known: the classes of folders whose manifest is not to be read.
    """
    found: dict[str, list[str]] = {}
    for url in urls:
        folder = storage.folder_of(url)
        if folder not in found:
            found[folder] = known[folder] if folder in known else _classes_in(folder)
    named = {folder: classes for folder, classes in found.items() if classes}
    first = next(iter(named), "")
    for folder, classes in named.items():
        if classes != named[first]:
            pairs = enumerate(zip_longest(named[first], classes, fillvalue="none"))
            at, (ours, theirs) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            warn(
                f"the classes of {first} and {folder} differ (class {at} is {ours} and "
                f"{theirs}), so that equal numbers are not equal classes; to train or score by "
                "classes, pack all images from one class tree"
            )
            return []
    return named[first] if len(named) == len(found) and named else []


def _classes_in(folder: str) -> list[str]:
    try:
        manifest = load_manifest(folder, kind="images", allow_unfinished=True)
    except MilanError:  # of others, or none is there
        return []
    return list(manifest.common.get("classes", []))
