"""The identity that targets will have, before a teacher's weights are loaded or a codec is fitted.

What only weights or a fit can tell is taken from the targets that are there already. Where there
are none, stand-ins take its place.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from milan_pipeline.codecs.registry import UNFITTED, CodecSpec
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.provenance.identity import (
    TRANSCODED_FROM,
    Identity,
    transcoded_identity,
    without,
)

STAND_INS: dict[str, dict[str, Any]] = {
    "teacher": {"weights_sha256": "0" * 32},
    "preprocessing": {name: [0.5, 0.5, 0.5] for name in ("mean", "std")},
}


def expected_extracted(
    known: Mapping[str, Mapping[str, Any]],
    policy: ViewPolicy,
    codec: CodecSpec,
    existing: Identity | None = None,
) -> Identity:
    """Build the identity of targets that a teacher will make.

    Args:
        known: the teacher's parts, as far as `teacher.description.visible_identity` tells them.
        policy: how views will be cut.
        codec: how targets will be stored.
        existing: of the targets that lie in the store already.
    """
    there = {} if existing is None else without(existing, {TRANSCODED_FROM})
    parts = {
        name: {**there.get(name, stand_in), **known[name]} for name, stand_in in STAND_INS.items()
    }
    spec = codec.for_width(parts["teacher"]["width"])
    return {
        **there,
        **parts,
        "view_policy": policy.as_dict(),
        "codec": expected_codec(spec, existing),
    }


def expected_transcoded(source: Identity, codec: CodecSpec, existing: Identity | None) -> Identity:
    """Build the identity of targets that will be made of other targets.

    Args:
        source: of the targets that are decoded.
        codec: how they will be stored, settled for their width.
        existing: of the targets that lie there already.
    """
    return transcoded_identity(source, expected_codec(codec, existing))


def expected_codec(codec: CodecSpec, existing: Identity | None) -> dict[str, Any]:
    """Return a codec's parameters; what a fit finds is taken from the existing targets."""
    there = {} if existing is None else existing["codec"]
    if codec.cosine is not None and there.get("cosine") == codec.cosine:
        codec = dataclasses.replace(codec, token_bytes=float(there["bytes"]))
    return codec.parameters(there.get("arrays", UNFITTED))
