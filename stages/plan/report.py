"""What `plan` finds out from its options, and how it says so.

`teacher` says when torch is loaded.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from milan_pipeline import storage
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.console import named_lines, report, short_bytes
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.planning.costs import (
    STUDENT_MULTIPLY_ADDS,
    Bytes,
    Plan,
    Rates,
    Workload,
    make_plan,
    recommended_views,
    step_ratio,
)
from milan_pipeline.planning.dataset import DatasetSize, assumed_dataset, listed_dataset
from milan_pipeline.planning.requests import JobRequests, Requests, job_requests
from milan_pipeline.planning.shard_size import ShardSize
from milan_pipeline.planning.store_size import KeyBytes, StoreSize
from milan_pipeline.shards.manifest import load_manifest, require_unique_stems
from milan_pipeline.stages.plan.command import RECIPE_STUDENT, PlanTargets
from milan_pipeline.stages.plan.records import record_bytes
from milan_pipeline.stages.plan.teacher import (
    Measure,
    known_teacher,
    settled_precision,
    timed_teacher,
)
from milan_pipeline.targets.expected_identity import expected_extracted
from milan_pipeline.targets.shard_records import layout_of
from milan_pipeline.targets.units import Unit

if TYPE_CHECKING:
    from milan_pipeline.planning.teacher_speed import TeacherSpeed

NAME_WIDTH = 20


def print_plan(config: PlanTargets) -> None:
    """Print the plan."""
    found = PlanReport(config)
    report(found.lines(), found.document())


class PlanReport:
    """A plan as lines for the terminal and as a JSON object."""

    def __init__(self, config: PlanTargets, measure: Measure | None = None) -> None:
        """Count and, if asked to, measure.

        Args:
            config: the options.
            measure: times the teacher; None for `measure_speeds`.

        Raises:
            ConfigError: the teacher, codec or device is unknown.
            MissingDataError, DataError: there is no manifest or index, or it is damaged.
        """
        self.config = config
        self.teacher = settled_precision(config)
        self.known = known_teacher(self.teacher)
        self.identity = expected_extracted(
            self.known.identity, ViewPolicy(), parse_codec(config.codec)
        )
        self.dataset = _dataset(config)
        self.speeds = list(timed_teacher(config, self.teacher, measure)) if config.measure else []

    @functools.cached_property
    def units(self) -> list[tuple[Unit, KeyBytes]]:
        """All units, and the bytes of their keys."""
        views = range(self.config.views)
        return [(Unit(view, shard), keys) for view in views for shard, keys in self.dataset.shards]

    @functools.cached_property
    def requests(self) -> JobRequests:
        """The requests to an object store, if all lies in one."""
        return job_requests(
            StoreSize(self.identity),
            [unit for unit, _ in self.units],
            image_bytes=self.dataset.image_bytes,
            pair_bytes=self.sizes.pair,
            samples=self.dataset.images * self.config.epochs,
        )

    def price(self, requests: Requests) -> float:
        """Return the US dollars that requests cost."""
        return requests.price(self.config.put_price, self.config.get_price)

    @functools.cached_property
    def sizes(self) -> Bytes:
        """Bytes of store, shards and a pair."""
        units = self.units
        store, packed = StoreSize(self.identity), ShardSize(self.identity)
        shards = tuple(shard for shard, _ in self.dataset.shards)
        records = record_bytes(self.config, self.identity, shards, len(units))
        out = self.config.out
        return Bytes(
            store=store.units(units) + store.groups(self.config.views) + records[0],
            shards=packed.units(units) + packed.manifest(units) + records[1],
            image=self.dataset.image_bytes,
            pair=layout_of(self.identity).bytes_per_sample + self.dataset.image_bytes,
            files=store.files(unit for unit, _ in units),
            free=None if out is None else storage.free_bytes(out),
            free_files=None if out is None else storage.free_files(out),
        )

    @property
    def measured(self) -> "TeacherSpeed | None":
        """The best speed in the precision that extract-targets would take; None if not timed."""
        own = [speed for speed in self.speeds if speed.precision == self.teacher.precision]
        return max(own, key=lambda speed: speed.rate, default=None)

    @functools.cached_property
    def rates(self) -> Rates:
        """The rates that were given or measured."""
        return Rates(
            teacher=self.measured.rate if self.measured else self.config.teacher_rate,
            student=self.config.student_rate,
            read=self.config.read_bandwidth,
        )

    @functools.cached_property
    def plan(self) -> Plan:
        """What comes of them."""
        config = self.config
        work = Workload(
            images=self.dataset.images,
            views=config.views,
            epochs=config.epochs,
            students=config.students,
            devices=config.devices,
        )
        return make_plan(work, self.sizes, self.rates)

    @property
    def targets(self) -> int:
        """How many there will be."""
        return max(1, self.dataset.images * self.config.views)

    def document(self) -> dict[str, Any]:
        """Return the JSON object; null stands for what is not known.

        Bytes: store_bytes, shard_bytes, bytes_per_sample_store and bytes_per_sample_shards (of a
        target, all files counted), read_bytes_per_s, read_bytes (a student's run), free_bytes.
        Files and folders: store_files, free_files.
        requests, request_dollars: to an object store, of extraction, packing and training.
        Device-hours: teacher_hours (all targets, once), in_loop_hours (a teacher in every step),
        saved_hours (of all training, waiting for storage counted; below 0: lost).
        break_even_epochs: epochs x students. recommended_views: of each image. fits, pays: whether;
        why: why not. student: its name.
        teacher_rate: images/s, in teacher_precision, which is "auto" if the device
        was not looked at. assumed, notes: sentences.
        """
        plan, sizes = self.plan, self.sizes
        return {
            "store_bytes": sizes.store,
            "store_files": sizes.files,
            "shard_bytes": sizes.shards,
            "bytes_per_sample_store": sizes.store / self.targets,
            "bytes_per_sample_shards": sizes.shards / self.targets,
            "read_bytes_per_s": plan.read_bytes_per_s,
            "read_bytes": plan.read_bytes,
            "requests": {name: r._asdict() for name, r in self.requests._asdict().items()},
            "request_dollars": {
                name: self.price(requests) for name, requests in self.requests._asdict().items()
            },
            "student": self.config.student,
            "teacher_rate": self.rates.teacher,
            "teacher_precision": self.teacher.precision,
            "teacher_hours": plan.teacher_hours,
            "in_loop_hours": plan.in_loop_hours,
            "saved_hours": plan.saved_hours,
            "break_even_epochs": plan.break_even_epochs,
            "recommended_views": recommended_views(self.config.epochs),
            "free_bytes": sizes.free,
            "free_files": sizes.free_files,
            "fits": sizes.fits,
            "pays": plan.pays,
            "why": list(plan.why),
            "assumed": list(self.dataset.assumed),
            "notes": list(plan.notes),
        }

    def lines(self) -> Iterator[str]:
        """Yield the plan in words."""
        yield from named_lines(self._size_rows(), width=NAME_WIDTH)
        for speed in self.speeds:
            faithful = "" if speed.is_faithful else ", too far from fp32"
            yield (
                f"teacher in {speed.precision}, batch {speed.batch}: {speed.rate:.4g} images/s, "
                f"mean cosine to fp32 {speed.cosine:.5f}{faithful}"
            )
        yield from self._precision_lines()
        yield from named_lines(self._time_rows(), width=NAME_WIDTH)
        for why in self.plan.why:
            yield f"does not pay: {why}"
        if self.plan.pays:
            yield "caching pays"
        for note in (*self.dataset.assumed, *self.plan.notes):
            yield f"note: {note}"

    def _precision_lines(self) -> Iterator[str]:
        """Yield the precision of the hours, and a precision that is faster."""
        if self.measured is None:
            return
        from milan_pipeline.planning.teacher_speed import fastest

        best = fastest(self.speeds)
        yield f"hours: --precision {self.teacher.precision}, as extract-targets settles it here"
        if best.rate > self.measured.rate:
            yield (
                f"faster: --precision {best.precision}, {best.rate:.4g} images/s (random weights; "
                "verify measures yours)"
            )

    def _size_rows(self) -> Iterator[tuple[str, str]]:
        sizes, plan, config = self.sizes, self.plan, self.config
        height, width = self.identity["teacher"]["grid"]
        shape = f"{1 + height * width} x {self.identity['teacher']['width']}"
        yield "targets:", f"{self.targets} of {shape}, {config.codec}"
        store = f"{_size(sizes.store, self.targets)}, {sizes.files} files and folders"
        yield "target store:", store
        yield "target shards:", _size(sizes.shards, self.targets)
        if sizes.free is not None:
            room = "enough" if sizes.fits else "too little"
            files = "" if sizes.free_files is None else f", {sizes.free_files} files"
            yield "free:", f"{short_bytes(sizes.free)}{files}: {room} for both"
        if plan.read_bytes_per_s is not None:
            yield (
                "reading:",
                f"{short_bytes(plan.read_bytes_per_s)}/s at {config.student_rate:g} images/s",
            )
        yield "read in a run:", f"{short_bytes(plan.read_bytes)} ({sizes.pair:.0f} a pair)"
        for name, requests in self.requests._asdict().items():
            kinds = f"{requests.puts:,} PUT, {requests.gets:,} GET"
            label = "  with --cache:" if name == "training_cached" else f"{name} on S3:"
            yield label, f"{kinds}: ${self.price(requests):.2f}"
        if plan.limited_rate is not None:
            yield "limited to:", f"{plan.limited_rate:.4g} images/s by --read-bandwidth"

    def _time_rows(self) -> Iterator[tuple[str, str]]:
        plan, config = self.plan, self.config
        if plan.teacher_hours is not None and plan.in_loop_hours is not None:
            yield "teacher, cached:", f"{plan.teacher_hours:.4g} device-hours"
            yield "teacher in the loop:", f"{plan.in_loop_hours:.4g} device-hours"
            if plan.pays and plan.saved_hours is not None:
                waits = "" if plan.limited_rate is None else ", waiting for storage counted"
                yield "saved:", f"{plan.saved_hours:.4g} device-hours{waits}"
        elif self.rates.student is None:
            teacher = self.known.multiply_adds()
            if config.student != RECIPE_STUDENT:
                more = f"{teacher / 1e9:.3g} G multiply-adds more, of the teacher"
                yield "step with teacher:", more
                return
            yield (
                "step with teacher:",
                f"{step_ratio(teacher):.3g} x as long, by multiply-adds alone",
            )
            student = f"{STUDENT_MULTIPLY_ADDS / 1e9:g} G of a ViT-B/16 student's step"
            yield "", f"({teacher / 1e9:.3g} G of the teacher, {student})"
        if plan.break_even_epochs is not None:
            trained = config.epochs * config.students
            pays = f"after {plan.break_even_epochs:.4g} of {trained} epochs"
            yield "break-even:", f"{pays}, summed over all students"


def _dataset(config: PlanTargets) -> DatasetSize:
    if config.images is not None:
        manifest = load_manifest(config.images, kind="images")
        require_unique_stems(manifest.shards)
        return listed_dataset(manifest)
    return assumed_dataset(config.samples or 0, config.samples_per_shard, config.image_bytes)


def _size(size: int, targets: int) -> str:
    return f"{short_bytes(size)} ({size / targets:.0f} a target)"
