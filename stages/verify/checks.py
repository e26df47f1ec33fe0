"""The checks of `verify`: every unit's objects, and a sample of targets with the live teacher."""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence

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
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.stages.verify.store import StoreParts
from milan_pipeline.targets.units import Mark, Unit, read_mark
from milan_pipeline.targets.verification_work import (
    CheckingSpec,
    Finding,
    extra_units,
    faults_of_groups,
)

logger = logging.getLogger(__name__)

Faults = dict[Unit, list[str]]


def check_units(
    store: StoreParts, units: Sequence[Unit], stop: StopRequest
) -> tuple[Faults, dict[Unit, Mark], int]:
    """Check units; return faults, the marks of sound units, and the number of extra files.

    The marks have no objects.
    """
    images, config = store.images, store.config
    spec = CheckingSpec(
        store=store.url,
        store_hash=content_hash(store.identity),
        images=None if images is None else store.extraction.images,
        images_sha256=None if images is None else images.sha256,
    )
    found: dict[Unit, Finding] = {}
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
            # Without the lists of objects, which would take kilobytes a unit.
            mark = finding.mark and dataclasses.replace(finding.mark, objects={})
            found[unit] = finding._replace(mark=mark)
            logger.info("%s: %s", unit.path, "; ".join(finding.faults) or "sound")
            bar.update(1)
    # In the order of the units, not in the order in which they were checked.
    faults = {unit: list(found[unit].faults) for unit in units if found[unit].faults}
    marks = {unit: mark for unit in units if (mark := found[unit].mark) is not None}
    extra = extra_units(store.url, store.units, store.views)
    extra += sum(finding.extra for finding in found.values())
    for view, reason in faults_of_groups(store.url, store.views).items():
        first = next((unit for unit in units if unit.view == view), None)
        if first is not None:
            faults.setdefault(first, []).append(reason)
    return faults, {unit: mark for unit, mark in marks.items() if unit not in faults}, extra


def check_sample(
    store: StoreParts, units: Sequence[tuple[Unit, Mark]], stop: StopRequest
) -> tuple[list[Comparison], Faults]:
    """Recompute a sample of targets; a target that cannot be compared is a fault of its unit."""
    config, images = store.config, store.images
    sample = draw_sample(units, config.sample, config.seed)
    if images is None or not sample:
        return [], {}
    size, interpolation = store.teacher.image_size, store.teacher.interpolation
    found: list[Comparison] = []
    faults: Faults = {}
    pending: list[StoredTarget] = []
    total = sum(len(rows) for _, _, rows in sample)
    with progress_bar("recompute", total=total) as bar:
        for unit, known, rows in sample:
            stop.raise_if_asked("checking changes nothing")
            try:
                mark = read_mark(store.url, unit) or known
                pending += targets_with_pixels(
                    store.url,
                    images,
                    unit,
                    mark,
                    rows,
                    codec=store.codec,
                    size=size,
                    interpolation=interpolation,
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
