"""An extraction as names and numbers that can be sent to another process."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.provenance.identity import Identity, build_identity, content_hash
from milan_pipeline.shards.manifest import Manifest, load_manifest, require_unique_stems
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSpec:
    """An extraction by names and numbers: which images, which teacher, where to.

    `device` is a device's name as torch knows it, or "auto".
    """

    images: str
    store: str
    teacher: TeacherSpec
    policy: ViewPolicy
    codec: str
    batch_size: int
    workers: int
    device: str

    def manifest(self) -> Manifest:
        """Read the manifest of the image shards; the names of their units must all differ."""
        manifest = load_manifest(self.images, kind="images")
        require_unique_stems(manifest.shards)
        return manifest

    def identity(self, teacher: Teacher, codec: Mapping[str, Any]) -> Identity:
        """Build the identity of the targets, for a codec of these parameters."""
        return build_identity(
            teacher=teacher.identity(),
            preprocessing=teacher.preprocessing(),
            view_policy=self.policy.as_dict(),
            codec=codec,
        )

    def job(self, manifest: Manifest, teacher: Teacher, identity: Identity) -> ExtractionJob:
        """Build what the loop needs; the store's root and codec must be there."""
        return ExtractionJob(
            manifest=manifest,
            store=self.store,
            identity_hash=content_hash(identity),
            teacher=teacher,
            policy=self.policy,
            codec=read_store_codec(self.store, identity),
            batch_size=self.batch_size,
            workers=self.workers,
            whole=self.teacher.compile,
        )
