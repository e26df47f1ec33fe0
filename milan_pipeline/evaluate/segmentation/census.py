"""Count the classes in masks before training, and find the masks that cannot be used.

Legend: Y classes.
"""

import dataclasses
from typing import Any

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

TOLD = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskCensus:
    """What the masks of a set hold.

    Attributes:
        masks: how many were looked at.
        pixels_Y: int64, pixels of each class in them.
        ignored: pixels that are ignored.
        unusable: how many masks cannot be used.
        reasons: why, of the first of them: sentences that name mask and remedy.
    """

    masks: int
    pixels_Y: NDArray[np.int64]
    ignored: int
    unusable: int
    reasons: tuple[str, ...]

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

    def look(sample: dict[str, Any]) -> NDArray[np.int64] | str:
        image = decoded_image(sample)
        try:
            return np.bincount(labels(sample, (image.height, image.width)).ravel(), minlength=256)
        except DataError as error:
            return str(error)

    pixels, counts = np.zeros(256, dtype=np.int64), [0, 0]
    reasons: list[str] = []
    for found in looked_at(
        table, look, ledger=ledger, world=world, threads=threads, sampled=sampled, title="masks"
    ):
        if isinstance(found, str):
            counts[1] += 1
            reasons = [*reasons, found][:TOLD]
        else:
            counts[0] += 1
            pixels += found
    local = torch.from_numpy(np.concatenate([pixels, counts]).astype(np.float64))
    whole = world.total(local).round().to(torch.int64).numpy()
    told = [reason for part in world.gather(reasons) for reason in part]
    return MaskCensus(
        masks=int(whole[256:].sum()),
        pixels_Y=whole[: labels.classes],
        ignored=int(whole[IGNORED]),
        unusable=int(whole[257]),
        reasons=tuple(told[:TOLD]),
    )


def require_usable(*sets: MaskCensus) -> None:
    """Refuse masks that cannot be used; the first ten are named.

    Raises:
        DataError: there are some.
    """
    reasons = [reason for each in sets for reason in each.reasons][:TOLD]
    unusable, masks = sum(each.unusable for each in sets), sum(each.masks for each in sets)
    if unusable == 1:
        raise DataError(reasons[0])
    if unusable:
        parts = [reason.rsplit("; ", 1) for reason in reasons]
        more = f" and {unusable - len(reasons)} more" if unusable > len(reasons) else ""
        listed = ", ".join(part[0] for part in parts)
        raise DataError(
            f"{unusable} of {masks} masks cannot be used: {listed}{more}; {parts[0][-1]}"
        )


def require_classes(train: MaskCensus, val: MaskCensus, places: tuple[str, str]) -> None:
    """Refuse masks that have nothing to learn, or nothing to score on.

    Args:
        train: of the masks to learn from, all of them.
        val: of the masks to score on, all of them.
        places: what the error calls the two sets.

    Raises:
        DataError: no pixel has a class, or all have the same.
    """
    for census, place in zip((train, val), places, strict=True):
        if not census.pixels_Y.any():
            raise DataError(
                f"no pixel of the masks of {place} has a class, all are ignored; write class "
                "numbers from 0 (with --reduce-zero-label: from 1) into the masks, or give another "
                "--ignore-index"
            )
    present = np.flatnonzero(train.pixels_Y)
    if len(present) == 1:
        beside = f" and ignored ones ({train.ignored_share:.0%})" if train.ignored else ""
        raise DataError(
            f"the masks of {places[0]} have pixels of {named(present)} alone{beside}, so that any "
            "answer is right; number the classes from 0 in the masks, where 255 often stands for 1"
        )
