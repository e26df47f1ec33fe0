"""Facts of a target store: what its targets are, how many, what was skipped, what it takes."""

import time
from typing import Any

from milan_pipeline.codec_spec import FLOAT16_BYTES, spec_of
from milan_pipeline.identity import Identity, content_hash
from milan_pipeline.report.facts import Facts, flattened
from milan_pipeline.status import STATES, read_status
from milan_pipeline.store_record import read_store_record
from milan_pipeline.target_records import layout_of
from milan_pipeline.target_store import FORMAT_VERSION, read_identity


def store_facts(url: str) -> Facts:
    """Tell what a target store holds; its targets are not read.

    Raises:
        MissingDataError: there is no store, or no record in it.
        DataError: it is damaged.
        StorageError: it cannot be read.
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
    """Say how many images could not be read, why, and name a few."""
    return {"skipped": sum(skipped.values()), "reasons": skipped, "first": first}


def size_facts(identity: Identity) -> dict[str, Any]:
    """Say what one target takes, and would take as float16; priors, boxes and such included."""
    layout, target = layout_of(identity), layout_of(identity).dtype.itemsize
    codes = (1 + layout.patches) * layout.codec.payload_bytes(layout.width)
    return {
        "one_target_bytes": target,
        "its_codes_bytes": codes,
        "codes_as_float16_bytes": (1 + layout.patches) * layout.width * FLOAT16_BYTES,
    }


def codec_facts(identity: Identity) -> dict[str, Any]:
    """Say how targets are stored."""
    spec, width = spec_of(identity["codec"]), int(identity["teacher"]["width"])
    size = spec.payload_bytes(width)
    return {
        "name": spec.name,
        "one_token_bytes": size,
        "bits_per_component": 8 * size / width,
        "smaller_than_float16": FLOAT16_BYTES * width / size,
        "fitted_to_targets": spec.needs_fit,
    }
