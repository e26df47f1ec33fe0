"""Count the classes in masks before training, and find the masks that cannot be used.

Legend: Y classes.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.cluster.world import World
from milan_pipeline.data.labelled import LabelledTable, decoded_image
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.class_coverage import named
from milan_pipeline.evaluate.sample_checks import looked_at
from milan_pipeline.evaluate.segmentation.masks import IGNORED, Labels
from milan_pipeline.images.orientation import UPRIGHT, orientation
from milan_pipeline.shards.random_access import IMAGE_MEMBER

TOLD = 10


class Reason(NamedTuple):
    """Why a mask cannot be used."""

    url: str
    key: str
    what: str
    remedy: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskCensus:
    """What the masks of a set hold.

    Attributes:
        masks: how many were looked at.
        pixels_Y: int64, pixels of each class in them.
        ignored: pixels that are ignored.
        unusable: how many masks cannot be used.
        turned: how many images have an EXIF orientation, which is ignored.
        reasons: of the first of them.
    """

    masks: int
    pixels_Y: NDArray[np.int64]
    ignored: int
    unusable: int
    turned: int
    reasons: tuple[Reason, ...]

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that is ignored."""
        return self.ignored / max(1, self.ignored + int(self.pixels_Y.sum()))


def take_census(
    table: LabelledTable,
    labels: Labels,
    *,
    ledger: RunLedger,
    world: World,
    threads: int,
    sampled: bool = False,
) -> MaskCensus:
    """Decode images and masks, and count; every process must call this.

    Args:
        table: of images and masks.
        labels: decodes masks.
        ledger: see `looked_at`.
        world: the processes.
        threads: number of threads that decode.
        sampled: see `looked_at`.

    Raises:
        DataError: more images than the ledger allows cannot be decoded.
    """

    def look(sample: dict[str, Any]) -> tuple[NDArray[np.int64], bool] | Reason:
        image = decoded_image(sample)
        try:
            found = labels(sample, (image.height, image.width))
            turned = orientation(sample[IMAGE_MEMBER]) != UPRIGHT
            return np.bincount(found.ravel(), minlength=256), turned
        except DataError as error:
            url, key = sample["__url__"], sample["__key__"]
            text = str(error).removeprefix(f"{url}, mask of {key!r} ")
            what, remedy = text.rsplit("; ", 1)
            return Reason(url, key, what, remedy)

    pixels, counts = np.zeros(256, dtype=np.int64), [0, 0, 0]
    reasons: list[Reason] = []
    for found in looked_at(
        table, look, ledger=ledger, world=world, threads=threads, sampled=sampled, title="masks"
    ):
        if isinstance(found, Reason):
            counts[1] += 1
            reasons = [*reasons, found][:TOLD]
        else:
            counts[0] += 1
            counts[2] += found[1]
            pixels += found[0]
    local = torch.from_numpy(np.concatenate([pixels, counts]).astype(np.float64))
    whole = world.total(local).round().to(torch.int64).numpy()
    told = [reason for part in world.gather(reasons) for reason in part]
    return MaskCensus(
        masks=int(whole[256:258].sum()),
        pixels_Y=whole[: labels.classes],
        ignored=int(whole[IGNORED]),
        unusable=int(whole[257]),
        turned=int(whole[258]),
        reasons=tuple(told[:TOLD]),
    )


def require_usable(*sets: MaskCensus) -> None:
    """Refuse masks that cannot be used; the first ten are named.

    Raises:
        DataError: there are some.
    """
    reasons = [reason for each in sets for reason in each.reasons][:TOLD]
    unusable, masks = sum(each.unusable for each in sets), sum(each.masks for each in sets)
    if not unusable:
        return
    keys: dict[tuple[str, str], list[str]] = {}
    for url, key, what, _ in reasons:
        keys.setdefault((url, what), []).append(repr(key))
    listed = ", ".join(f"{url}: {', '.join(some)} ({what})" for (url, what), some in keys.items())
    more = f" and {unusable - len(reasons)} more" if unusable > len(reasons) else ""
    raise DataError(
        f"{unusable} of {masks} masks cannot be used, those of {listed}{more}; {reasons[0].remedy}"
    )


def require_labelled(census: MaskCensus, place: str) -> None:
    """Refuse masks, all of a set, without a pixel that has a class.

    Raises:
        DataError: there is none.
    """
    if not census.pixels_Y.any():
        raise DataError(
            f"no pixel of the masks of {place} has a class, all are ignored; write class numbers "
            "from 0 (with --reduce-zero-label: from 1) into the masks, or give another "
            "--ignore-index"
        )


def require_classes(train: MaskCensus, place: str) -> None:
    """Refuse masks, all of a set, that have nothing to learn.

    Raises:
        DataError: no pixel has a class, or all have the same.
    """
    require_labelled(train, place)
    present = np.flatnonzero(train.pixels_Y)
    if len(present) == 1:
        beside = f" and ignored ones ({train.ignored_share:.0%})" if train.ignored else ""
        raise DataError(
            f"the masks of {place} have pixels of {named(present)} alone{beside}, so that any "
            "answer is right; number the classes from 0 in the masks, where 255 often stands for 1"
        )
