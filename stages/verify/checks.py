"""The checks of `verify`: every unit's objects, and a sample of targets with the live teacher."""

import contextlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.cluster.spread import spread
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.errors import DataError
from milan_pipeline.extraction.live_check import (
    LIVE_BATCH,
    Comparison,
    StoredTarget,
    compare,
    draw_sample,
    targets_with_pixels,
)
from milan_pipeline.images.views import policy_of
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.stages.verify.store import StoreParts
from milan_pipeline.targets.units import Unit, read_mark
from milan_pipeline.targets.verification_work import (
    CheckingSpec,
    extra_names,
    faults_of_groups,
)

logger = logging.getLogger(__name__)

Faults = dict[Unit, list[str]]


class Checked(NamedTuple):
    """What was found in some units.

    Attributes:
        faults: what is wrong, of each unit that is not sound.
        targets_u: how many targets each unit has; 0 if it is not sound.
        extra: number of files that nothing reads.
    """

    faults: Faults
    targets_u: NDArray[np.int64]
    extra: int


def check_units(store: StoreParts, units: Sequence[Unit], stop: StopRequest) -> Checked:
    """Check units, and list what lies beside them."""
    images, config = store.images, store.config
    spec = CheckingSpec(
        store=store.url,
        store_hash=content_hash(store.identity),
        images=None if images is None else store.extraction.images,
        images_sha256=None if images is None else images.sha256,
    )
    number_of = {unit: number for number, unit in enumerate(units)}
    targets_u = np.zeros(len(units), np.int64)
    names_u = np.zeros(len(units), np.uint64)
    has_mark_u = np.zeros(len(units), np.bool_)
    found: Faults = {}
    results = spread(
        spec,
        units,
        stop,
        threads=config.workers,
        scheduler=config.scheduler,
        processes=config.processes,
    )
    with (
        contextlib.closing(results),
        progress_bar("verify", total=len(units), unit="units") as bar,
    ):
        for unit, finding in results:
            number = number_of[unit]
            targets_u[number] = finding.targets
            if finding.names is not None:
                names_u[number], has_mark_u[number] = finding.names, True
            if finding.faults:
                found[unit] = finding.faults
            logger.info("%s: %s", unit.path, "; ".join(finding.faults) or "sound")
            bar.update(1)
    # In the order of the units, not in the order in which they were checked.
    faults = {unit: list(found[unit]) for unit in sorted(found, key=number_of.__getitem__)}
    extra = 0
    for view in range(store.views):
        of_view: dict[str, tuple[Unit, int | None]] = {
            unit.shard.stem: (unit, None) for unit in store.units if unit.view == view
        }
        for unit, number in number_of.items():
            if unit.view == view and has_mark_u[number]:
                of_view[unit.shard.stem] = unit, int(names_u[number])
        extra += extra_names(store.url, view, of_view)
    for view, reason in faults_of_groups(store.url, store.views).items():
        first = next((unit for unit in units if unit.view == view), None)
        if first is not None:
            faults.setdefault(first, []).append(reason)
    targets_u[[number_of[unit] for unit in faults]] = 0
    return Checked(faults, targets_u, extra)


def check_sample(
    store: StoreParts, units: Sequence[Unit], targets_u: NDArray[np.int64], stop: StopRequest
) -> tuple[list[Comparison], Faults]:
    """Recompute a sample of targets; a target that cannot be compared is a fault of its unit.

    Args:
        store: what is checked.
        units: units of it.
        targets_u: how many targets may be drawn of each.
        stop: asked between units.
    """
    config, images = store.config, store.images
    sample = draw_sample(targets_u, config.sample, config.seed)
    if images is None or not sample:
        return [], {}
    size, interpolation = store.teacher.image_size, store.teacher.interpolation
    policy = policy_of(store.identity["view_policy"])
    found: list[Comparison] = []
    faults: Faults = {}
    pending: list[StoredTarget] = []
    total = sum(map(len, sample.values()))
    with progress_bar("recompute", total=total) as bar:
        for number, rows in sample.items():
            stop.raise_if_asked("checking changes nothing")
            unit = units[number]
            try:
                mark = read_mark(store.url, unit)
                if mark is None:
                    raise DataError(f"{unit.mark_path} was deleted since it was checked")
                pending += targets_with_pixels(
                    store.url,
                    images,
                    unit,
                    mark,
                    rows,
                    codec=store.codec,
                    size=size,
                    interpolation=interpolation,
                    policy=policy,
                )
            except DataError as error:
                faults[unit] = [str(error)]
            while len(pending) >= LIVE_BATCH:
                found += compare(pending[:LIVE_BATCH], store.teacher, store.reference)
                pending = pending[LIVE_BATCH:]
            bar.update(len(rows))
        if pending:
            found += compare(pending, store.teacher, store.reference)
    return found, faults
