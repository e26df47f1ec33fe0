"""The bytes of the records that the planned stages will write."""

from milan_pipeline.cli.options import fields_from
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.stages.plan.command import PlanTargets
from milan_pipeline.targets.unit_list import extent_of


def record_bytes(
    config: PlanTargets, identity: Identity, shards: tuple[Shard, ...], units: int
) -> tuple[int, int]:
    """Count the bytes of the records of extract-targets and pack-targets."""
    manifest = Manifest(kind="images", folder="", shards=shards)
    extraction = StageRecord(
        url="",
        stage="extract-targets",
        config=fields_from(
            ExtractTargets,
            config,
            images=config.images or "images",
            out=config.out or "targets.zarr",
            device="auto",  # so that the plan is the same on any device
        ),
        inputs={},
        content=identity,
        extent=extent_of(manifest, config.views),
    )
    packing = StageRecord(
        url="",
        stage="pack-targets",
        config=PackTargets(targets=config.out or "targets.zarr", out=config.out or "targets"),
        inputs={},
        content=identity,
        extent={"units": units},
    )
    targets = max(1, manifest.samples * config.views)
    counts = {"units": 1000, "units_done_now": 1000, "targets": targets, "skipped": 0}
    # With a fixed duration, so that a plan is the same each time.
    extracted, packed = (
        record.to_bytes("done", counts, seconds=0.0) for record in (extraction, packing)
    )
    return len(extracted), len(packed)
