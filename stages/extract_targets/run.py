"""Run `extract-targets`: do this process's units, here or on Dask workers, and write the record.

Any number of processes may do this for one store at the same time. They share only the store. Each
does its own units; a process that then finds no unit left in the full list sets the state "done".
"""

import contextlib
import dataclasses
import logging
from typing import Any

from tqdm import tqdm

from milan_pipeline.cli.options import AUTO
from milan_pipeline.core.console import say, say_counts, say_nothing_to_do
from milan_pipeline.core.counting import counted, such
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.out_of_memory import explaining
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.loop import KEPT, extract_units
from milan_pipeline.extraction.spec import JobSpec
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import Reporter, closing_report
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.stages.extract_targets.batch import recorded_batch, settled_batch
from milan_pipeline.stages.extract_targets.codec import fits_codec, require_fitted, settled_identity
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.devices import extract_on_devices, on_one_device
from milan_pipeline.stages.extract_targets.plan import (
    WorkList,
    list_work,
    own_device,
    record_of,
    samples_of,
    say_teacher,
    spec_of,
)
from milan_pipeline.stages.extract_targets.views import settled_views
from milan_pipeline.stages.shared.own_folder import require_own_folder
from milan_pipeline.targets.layout import create_root, require_place
from milan_pipeline.targets.unit_list import FinishedUnits, undone_units
from milan_pipeline.targets.units import Unit, read_marks
from milan_pipeline.teacher.teacher import Teacher
from milan_pipeline.training.compiling import explained_compiler

logger = logging.getLogger(__name__)


def extract(config: ExtractTargets, stop: StopRequest) -> None:
    """Do every unit that is not done, or those of this part.

    Raises:
        ConfigError: the precision cannot be chosen here, --out cannot be a store, memory ran out,
            or torch cannot compile the teacher.
        DataError: units failed, or too many images cannot be read.
        InterruptedRunError: a stop was asked for; finished units are kept.
        MismatchError: the store holds other targets, or other processes do another extent of them.
    """
    require_place(config.out)
    require_own_folder(config.out, "target store")
    config = on_one_device(settled_views(config))
    spec = spec_of(config)
    manifest = spec.manifest()
    say_teacher(config, spec.teacher)
    require_fitted(config)
    device = str(own_device(config)) if uses_teacher(config) else "cpu"
    teacher = Teacher.load(spec.teacher, device=device)
    batch_size = settled_batch(config, teacher)
    config = dataclasses.replace(config, batch_size=batch_size)
    spec = dataclasses.replace(spec, batch_size=batch_size)
    with explaining(config), explained_compiler():
        identity = settled_identity(config, spec, manifest, teacher, stop)
    create_root(config.out, identity, overwrite=config.overwrite)
    work = list_work(config, manifest, content_hash(identity), keep=_keeps(config))
    record = record_of(config, identity, manifest)
    if not work.left and record.previous_state() == "done":
        say_nothing_to_do(config.out, such(len(work.units), "units", "done"))
        return
    if config.part:
        # With another batch size, two processes that do the same unit would write other bytes.
        record.require_joinable("views", "batch_size")
        record.join()
    else:
        record.begin()
    if config.init:
        left, total = len(work.left), len(work.units)
        said = f"{config.out}: ready, {left} of {total} units to do"
        say(said, out=config.out, units_to_do=left, units=total)
        return
    budget = _budget(config, work)
    if config.devices:
        del teacher
        stop.raise_if_asked(KEPT)
        extract_on_devices(config, samples_of(work.own_left))
    elif config.on_dask:
        del teacher
        units = list(work.own_left)
        _extract_on_dask(config, spec, manifest, identity, units, budget=budget, stop=stop)
    else:
        job = spec.job(manifest, teacher, identity)
        with explaining(config), explained_compiler():
            _extract_here(config, job, list(work.own_left), budget, stop)
    _finish(config, work, record, identity)


def uses_teacher(config: ExtractTargets) -> bool:
    """Tell whether this process runs the teacher, or only needs the teacher's identity.

    Workers and the processes of devices load their own. This process then runs it only to fit a
    codec or to choose a batch size, where no earlier run has done so.
    """
    if config.on_dask:
        return False
    if not config.init and config.devices is None:
        return True
    chooses_batch = config.batch_size == AUTO and recorded_batch(config) is None
    return chooses_batch or fits_codec(config)


def _budget(config: ExtractTargets, work: WorkList) -> BadImageBudget:
    """Return the budget of this process's units; units that are done are counted already."""
    shards = {unit.shard.name: unit.shard.samples for unit in work.own}
    budget = BadImageBudget(fraction=config.max_bad_fraction, images=sum(shards.values()))
    own = None if work.own is work.units else set(work.own)
    for unit, mark in work.done.incomplete():
        if own is None or unit in own:
            budget.add(unit.shard.name, mark.skipped)
    return budget


def _extract_here(
    config: ExtractTargets,
    job: ExtractionJob,
    units: list[Unit],
    budget: BadImageBudget,
    stop: StopRequest,
) -> None:
    reporter = Reporter(config.out, _name(config), units=len(units), stop=stop)
    waiting = {(unit.view, unit.shard.name): unit for unit in units}
    with progress_bar("extract-targets", total=samples_of(units)) as bar, closing_report(reporter):

        def count(images: int) -> None:
            bar.update(images)
            reporter.images(images)

        _tell_units(bar, 0, len(units))
        if units:
            reporter.begin(units[0].path)
        for mark in extract_units(job, units, budget, stop, count):
            reporter.end(waiting.pop((mark.view, mark.shard)).path)
            _tell_units(bar, len(units) - len(waiting), len(units))
            if waiting:
                reporter.begin(next(iter(waiting.values())).path)


def _extract_on_dask(
    config: ExtractTargets,
    spec: JobSpec,
    manifest: Manifest,
    identity: Identity,
    units: list[Unit],
    *,
    budget: BadImageBudget,
    stop: StopRequest,
) -> None:
    from milan_pipeline.cluster.dask_client import connected
    from milan_pipeline.extraction.on_dask import ExtractionSpec, extract_on_workers

    if not units:
        return
    work = ExtractionSpec(
        job=spec,
        manifest_sha256=manifest.sha256,
        store_hash=content_hash(identity),
        reports=_name(config),
    )
    shared = config.processes is not None
    with (
        connected(scheduler=config.scheduler, processes=config.processes) as client,
        progress_bar("extract-targets", total=samples_of(units)) as bar,
        contextlib.closing(
            extract_on_workers(client, work, units, stop, share_machine=shared)
        ) as outcomes,
    ):
        done = 0
        for outcome in outcomes:
            done += outcome.mark is not None
            _tell_units(bar, done, len(units))
            bar.update(outcome.unit.shard.samples)
            logger.info("%s: %s", outcome.unit.path, "done" if outcome.mark else "failed")
            if outcome.mark is not None:
                budget.add(outcome.mark.shard, outcome.mark.skipped)


def _tell_units(bar: "tqdm[Any]", done: int, units: int) -> None:
    bar.set_description_str(f"extract-targets, {done} of {units} units", refresh=False)


def _finish(
    config: ExtractTargets, work: WorkList, record: StageRecord, identity: Identity
) -> None:
    """Print what other processes have left to do; if nothing is left, set the record to "done".

    Raises:
        DataError: too many of all images cannot be read.
        MismatchError: another process has meanwhile overwritten the store.
    """
    create_root(config.out, identity)
    marks = read_marks(config.out, config.view_count, keep=_keeps(config))
    left = undone_units(work.units, marks, content_hash(identity))
    own = len(work.own_left)
    now = f"{config.out}: {counted(own, 'units')} done now"
    if left:
        say(
            f"{now}; {len(left)} of all {len(work.units)} units are left to others",
            out=config.out, units_done_now=own, units_to_do=len(left), units=len(work.units),
        )  # fmt: skip
        return
    if not record.is_current():
        said = f"{now}; others have begun to extract more, or less"
        say(said, out=config.out, units_done_now=own)
        return
    done = FinishedUnits(work.units, marks, content_hash(identity))
    _budget(config, work._replace(own=work.units, done=done))
    counts = {
        "units": len(done),
        "units_done_now": own,
        "targets": done.samples,
        "skipped": sum(len(mark.skipped) for _, mark in done.incomplete()),
    }
    record.finish(counts)
    say_counts(config.out, counts)


def _keeps(config: ExtractTargets) -> bool:
    """Tell whether to write down what many marks say; of an array, all parts would at once."""
    return config.part is None


def _name(config: ExtractTargets) -> str:
    """Return the name of this process for its report."""
    return "single" if config.own_part is None else config.own_part.name
