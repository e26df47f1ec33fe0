"""What `verify` needs of a store: units, images, teacher, and how to extract units again."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milan_pipeline import storage
from milan_pipeline.codecs.registry import DIRECTIONAL
from milan_pipeline.core.console import note
from milan_pipeline.core.devices import pick_device
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.provenance.identity import TRANSCODED_FROM, require_same
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.plan import spec_of
from milan_pipeline.stages.verify.command import Verify
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.store_record import read_store_record
from milan_pipeline.targets.unit_list import UnitList
from milan_pipeline.targets.units import Unit, revoke
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher


class StoreParts:
    """A store, its units, and what it was made from."""

    def __init__(self, config: Verify) -> None:
        self.config = config
        self.url = config.store
        self.identity = read_identity(self.url)
        self.codec = read_store_codec(self.url, self.identity)
        record = read_store_record(self.url, self.identity)
        self.is_transcoded = record.is_transcoded
        if config.repair and self.is_transcoded:
            raise MismatchError(
                f"--repair extracts, and {self.url} was transcoded; without --repair verify names "
                f"what is not sound, whose marks in {self.url}/done are to be deleted before "
                "transcode is run again"
            )
        precision = {"precision": self.identity["teacher"]["precision"]}  # as it was settled
        self.extraction = extraction_of(config, {**record.extraction, **precision})
        self.images = self._load_images()
        self.views = record.views
        self._recorded = record.units()

    @property
    def lossy_before(self) -> str | None:
        """The small codec that the targets went through before that of the store, if any."""
        before = self.identity.get(TRANSCODED_FROM)
        while before is not None and before["name"] not in DIRECTIONAL:
            before = before.get(TRANSCODED_FROM)
        return before and str(before["name"])

    @functools.cached_property
    def units(self) -> UnitList:
        """The units of the last extraction, with their present image shards if these are known."""
        now = {shard.stem: shard for shard in self.images.shards} if self.images else {}
        shards = [now.get(shard.stem, shard) for shard in self._recorded.shards]
        return UnitList(shards, self.views)

    @functools.cached_property
    def spec(self) -> TeacherSpec:
        """The teacher that the targets were made with.

        Raises:
            ConfigError: it is a folder or file that is not on this machine.
        """
        spec = self.extraction.teacher_spec
        if spec.place is not None and not storage.exists(spec.place[1]):
            raise ConfigError(
                f"--teacher {spec.name!r}, which {self.url} was made with, is not here; give "
                f"--teacher {spec.place[0]}PATH, or --sample 0 to check without it"
            )
        was_file = self.identity["teacher"]["pretrained"] == "file"
        if was_file and not (spec.pretrained and Path(spec.pretrained).is_file()):
            raise ConfigError(
                f"--pretrained {spec.pretrained!r}, which {self.url} was made with, is no file "
                "here; give --pretrained PATH, or --sample 0 to check without it"
            )
        return spec

    @functools.cached_property
    def teacher(self) -> Teacher:
        """The live teacher, in the store's precision.

        Raises:
            MismatchError: it is not the store's teacher; the message names each field.
        """
        teacher = self._load(self.spec)
        parts = {name: self.identity[name] for name in ("teacher", "preprocessing")}
        live = {"teacher": teacher.identity(), "preprocessing": teacher.preprocessing()}
        live = json.loads(json.dumps(live))
        remedy = "give the --teacher and --pretrained that the targets were made with"
        require_same(parts, live, what=self.url, remedy=remedy)
        return teacher

    @functools.cached_property
    def reference(self) -> Teacher | None:
        """The teacher in fp32; None if the store's teacher is in fp32."""
        if self.spec.precision == "fp32":
            return None
        return self._load(dataclasses.replace(self.spec, precision="fp32"))

    def repaired(self, units: Sequence[Unit], stop: StopRequest) -> list[Unit]:
        """Extract units again, except for those whose image shard has changed.

        Raises:
            MissingDataError: the images are not here.
            MismatchError: the teacher, or the record's options, are not those of the store.
            InterruptedRunError: a stop was asked for; units that are repaired stay repaired.
        """
        images = self.images
        if images is None:
            raise MissingDataError("--repair needs the images; give --images")
        left = self.repairable(units)
        for unit in units:
            if unit not in left:
                note(f"{unit.path}: its shard has changed; extract-targets follows that")
        spec = spec_of(self.extraction)
        wanted = json.loads(json.dumps(spec.identity(self.teacher, self.identity["codec"])))
        remedy = "run extract-targets with the options of the store"
        require_same(self.identity, wanted, what=self.url, remedy=remedy)
        job = spec.job(images, self.teacher, self.identity)
        budget = BadImageBudget(fraction=self.extraction.max_bad_fraction, images=images.samples)
        # One by one, so that an interruption leaves the units after it unchanged.
        for unit in left:
            stop.raise_if_asked("repaired units stay so")
            revoke(self.url, unit)  # otherwise the loop takes it for done
            for _ in extract_units(job, [unit], budget, stop):
                pass
        return left

    def repairable(self, units: Sequence[Unit]) -> list[Unit]:
        """Return the units whose image shard has not changed; all, if there are no images here."""
        if self.images is None:
            return list(units)
        recorded = {shard.stem: shard.sha256 for shard in self._recorded.shards}
        listed = {shard.stem: shard.sha256 for shard in self.images.shards}
        return [unit for unit in units if listed.get(unit.shard.stem) == recorded[unit.shard.stem]]

    def _load(self, spec: TeacherSpec) -> Teacher:
        return Teacher.load(spec, device=str(pick_device(self.config.device)))

    def _load_images(self) -> Manifest | None:
        try:
            return load_manifest(self.extraction.images, kind="images")
        except MissingDataError:
            if self.config.images is None and not (self.config.sample or self.config.repair):
                return None
            raise MissingDataError(
                f"--images {self.extraction.images} has no manifest; give the folder of the "
                "images that the targets were made from, or --sample 0 to check only the store"
            ) from None


def extraction_of(config: Verify, recorded: dict[str, Any]) -> ExtractTargets:
    """Rebuild the options of the last extraction; options that were given here replace them.

    The codec is not among them: the identity has it, and this version may no longer know the one
    that was extracted with.
    """
    known = {field.name for field in dataclasses.fields(ExtractTargets)} - {"codec"}
    values = {name: value for name, value in recorded.items() if name in known}
    if config.teacher is not None:
        values |= {"teacher": config.teacher, "pretrained": config.pretrained}
    given = {"images": config.images, "pretrained": config.pretrained, "device": config.device}
    given = {name: value for name, value in given.items() if value is not None}
    return ExtractTargets(**(values | given | {"out": config.store, "overwrite": False}))
