"""Facts of a folder of image shards or target shards, told from its manifest alone."""

from collections import Counter
from typing import Any

from milan_pipeline.identity import stated_identity
from milan_pipeline.manifest import Manifest, load_manifest
from milan_pipeline.report.facts import Facts, flattened
from milan_pipeline.report.store_facts import (
    codec_facts,
    identity_facts,
    ledger_facts,
    size_facts,
)

NAMED_SKIPPED = 5


def target_shard_facts(url: str) -> Facts:
    """Tell what target shards hold.

    Raises:
        MissingDataError: there is no manifest.
        DataError: it is damaged.
    """
    manifest = load_manifest(url, kind="targets", allow_unfinished=True)
    identity = stated_identity(manifest.common, what=url)
    skipped = [
        (shard.details["source"], row)
        for shard in manifest.shards
        for row in shard.details["skipped"]
    ]
    reasons = Counter(row["reason"].partition(" (")[0] for _, row in skipped)
    return {
        "target shards": _common(url, manifest),
        "identity": identity_facts(identity),
        "counts": {
            "targets": manifest.samples,
            "views": len({shard.details["view"] for shard in manifest.shards}),
            "shards": len(manifest.shards),
        },
        "ledger": ledger_facts(
            dict(reasons.most_common()),
            [f"{source}:{row['key']} ({row['reason']})" for source, row in skipped[:NAMED_SKIPPED]],
        ),
        "sizes": {
            "all_shards_bytes": sum(shard.bytes for shard in manifest.shards),
            **size_facts(identity),
        },
        "codec": codec_facts(identity),
    }


def image_shard_facts(url: str) -> Facts:
    """Tell what image shards hold.

    Raises:
        MissingDataError: there is no manifest.
        DataError: it is damaged.
    """
    manifest = load_manifest(url, kind="images", allow_unfinished=True)
    sizes = [shard.bytes for shard in manifest.shards]
    common = {name: _counted(value) for name, value in flattened(manifest.common)}
    return {
        "image shards": _common(url, manifest) | common,
        "counts": {
            "images": manifest.samples,
            "shards": len(manifest.shards),
            "fewest_in_a_shard": min((shard.samples for shard in manifest.shards), default=0),
            "most_in_a_shard": max((shard.samples for shard in manifest.shards), default=0),
        },
        "sizes": {
            "all_shards_bytes": sum(sizes),
            "one_image_about_bytes": round(sum(sizes) / max(1, manifest.samples)),
            "largest_shard_bytes": max(sizes, default=0),
        },
    }


def _common(url: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "path": url,
        "state": "done" if manifest.complete else "running",
        "manifest_sha256": manifest.sha256,
    }


def _counted(value: Any) -> Any:
    """Of many rows, such as 1,000 class names, tell the number."""
    return len(value) if isinstance(value, list) and len(value) > NAMED_SKIPPED else value
