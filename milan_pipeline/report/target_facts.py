"""Facts of a target store, and of a folder of image shards or target shards.

They come from records, marks and manifests; neither targets nor images are read.
"""

import time
from collections import Counter
from typing import Any

from milan_pipeline.codecs.registry import FLOAT16_BYTES
from milan_pipeline.provenance.identity import Identity, content_hash, stated_identity
from milan_pipeline.report.facts import Facts, flattened
from milan_pipeline.report.folder_kind import Kind
from milan_pipeline.report.folder_status import shards_status
from milan_pipeline.shards.columns import TargetRow
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.totals import read_totals
from milan_pipeline.targets.layout import FORMAT_VERSION, read_identity
from milan_pipeline.targets.shard_records import layout_of
from milan_pipeline.targets.status import NAMED_SKIPPED, STATES, kind_of_reason, read_status
from milan_pipeline.targets.store_record import read_store_record


def store_facts(url: str) -> Facts:
    """Return what a target store holds; its targets are not read.

    Raises:
        MissingDataError: there is no store, or no record in it.
        DataError: it is damaged.
        StorageError: the store cannot be read.
    """
    identity = read_identity(url)
    record, status = read_store_record(url, identity), read_status(url, now=time.time())
    return {
        "target store": {
            "path": url,
            "state": status.state,
            "made_by": record.stage,
            "format_version": FORMAT_VERSION,
        },
        "identity": identity_facts(identity),
        "counts": {
            "targets": status.targets,
            "views": record.views,
            "image_shards": len(record.extent["shards"]),
            "images_left": status.images_left,
            **{f"units_{state}": status.count(state) for state in STATES},
        },
        "ledger": ledger_facts(status.skipped, status.first_skipped),
        "sizes": {"all_targets_bytes": status.bytes, **size_facts(identity)},
        "codec": codec_facts(identity),
    }


def identity_facts(identity: Identity) -> dict[str, Any]:
    """Return an identity's fields by dotted names, after its hash."""
    return {"hash": content_hash(identity), **dict(flattened(identity))}


def ledger_facts(skipped: dict[str, int], first: list[str]) -> dict[str, Any]:
    """Return how many images could not be read, why, and a few of them."""
    return {"skipped": sum(skipped.values()), "reasons": skipped, "first": first}


def size_facts(identity: Identity) -> dict[str, Any]:
    """Return the bytes of one target, and of its codes, also as float16."""
    layout, target = layout_of(identity), layout_of(identity).dtype.itemsize
    codes = layout.codec.payload_bytes(1 + layout.patches, layout.width)
    return {
        "one_target_bytes": target,
        "its_codes_bytes": codes,
        "codes_as_float16_bytes": (1 + layout.patches) * layout.width * FLOAT16_BYTES,
    }


def codec_facts(identity: Identity) -> dict[str, Any]:
    """Return how targets are stored."""
    layout = layout_of(identity)
    spec, width = layout.codec, layout.width
    size = spec.payload_bytes(1 + layout.patches, width) / (1 + layout.patches)
    return {
        "name": spec.name,
        "one_token_bytes": size,
        "bits_per_component": 8 * size / width,
        "smaller_than_float16": FLOAT16_BYTES * width / size,
        "fitted_to_targets": spec.needs_fit,
    }


def target_shard_facts(url: str) -> Facts:
    """Return what target shards hold.

    Raises:
        MissingDataError: there is no manifest.
        DataError: it is damaged.
    """
    views: set[int] = set()
    reasons: Counter[str] = Counter()
    first: list[str] = []

    def note_skipped(shard: TargetRow) -> None:
        views.add(shard.details.view)
        for row in shard.details.skipped:
            reasons[kind_of_reason(row["reason"])] += 1
            if len(first) < NAMED_SKIPPED:
                first.append(f"{shard.details.source}:{row['key']} ({row['reason']})")

    manifest, totals = read_totals(url, kind="targets", also=note_skipped)
    identity = stated_identity(manifest.common, what=url)
    return {
        "target shards": _common(url, "target shards", manifest),
        "identity": identity_facts(identity),
        "counts": {
            "targets": totals.samples,
            "views": len(views),
            "shards": totals.shards,
        },
        "ledger": ledger_facts(dict(reasons.most_common()), first),
        "sizes": {"all_shards_bytes": totals.bytes, **size_facts(identity)},
        "codec": codec_facts(identity),
    }


def image_shard_facts(url: str) -> Facts:
    """Return what image shards hold.

    Raises:
        MissingDataError: there is no manifest.
        DataError: it is damaged.
    """
    manifest, totals = read_totals(url, kind="images")
    common = {name: _counted(value) for name, value in flattened(manifest.common)}
    return {
        "image shards": _common(url, "image shards", manifest) | common,
        "counts": {
            "images": totals.samples,
            "shards": totals.shards,
            "fewest_in_a_shard": totals.fewest,
            "most_in_a_shard": totals.most,
        },
        "sizes": {
            "all_shards_bytes": totals.bytes,
            "one_image_about_bytes": round(totals.bytes / max(1, totals.samples)),
            "largest_shard_bytes": totals.largest,
        },
    }


def _common(url: str, kind: Kind, manifest: Manifest) -> dict[str, Any]:
    return {
        "path": url,
        "state": shards_status(url, kind, time.time()).state,
        "manifest_sha256": manifest.sha256,
    }


def _counted(value: Any) -> Any:
    """Replace a long list, such as 1,000 class names, by its length."""
    return len(value) if isinstance(value, list) and len(value) > NAMED_SKIPPED else value
