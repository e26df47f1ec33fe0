"""Target shards of a second teacher, made of those of a first one, with no teacher."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.shard_records import TARGET_EXTENSION, RecordLayout, layout_of
from tests.support.stores import targets_of

WIDTH = 8
"""Of its targets."""


def write_second_teacher(shards: Path, out: Path, *, box: Any = None, **changes: Any) -> Path:
    """Write targets of the same views, of another width and with the priors in reverse.

    Args:
        shards: of the first teacher.
        out: the folder to write.
        box: of every record, in place of its own.
        changes: of parts of the identity, by name.
    """
    manifest = load_manifest(str(shards), kind="targets")
    identity: dict[str, Any] = manifest.common["identity"]
    identity = identity | {"teacher": identity["teacher"] | {"name": "other", "width": WIDTH}}
    identity |= {name: identity[name] | part for name, part in changes.items()}
    common = {"identity": identity, "identity_hash": content_hash(identity)}
    own = layout_of(manifest.common["identity"])
    layout = RecordLayout(parse_codec("float16"), own.patches, WIDTH)
    written = []
    for shard in manifest.shards:
        samples = []
        for key, data in targets_of(manifest, shard):
            first, record = own.from_bytes(data), np.zeros((), layout.dtype)
            for name in ("flip", "digest"):
                record[name] = first[name]
            record["box"] = first["box"] if box is None else box
            record["prior"] = first["prior"][::-1]
            record["codes"] = 3 - first["codes"][:, :WIDTH]
            samples.append(Sample(key, {TARGET_EXTENSION: layout.to_bytes(record)}))
        one = write_shard(str(out), shard.name, samples)
        details = dict(shard.details) | {"identity_hash": common["identity_hash"]}
        written.append(dataclasses.replace(one, details=details))
    changed = dataclasses.replace(
        manifest, folder=str(out), shards=tuple(written), common=dict(manifest.common) | common
    )
    changed.save()
    return out
