"""The identity of targets: all that their values depend on; build, hash and compare it."""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypedDict

from milan_pipeline.core.schema import Count, DocumentError, conforming
from milan_pipeline.errors import DataError, MismatchError

Identity = dict[str, Any]


class _Teacher(TypedDict):
    grid: tuple[Count, Count]
    width: Count


class _Codec(TypedDict):
    name: str


class _Parts(TypedDict):
    """The parts of an identity that are read; all else in it is only hashed and compared."""

    teacher: _Teacher
    preprocessing: dict[str, Any]
    view_policy: dict[str, Any]
    codec: _Codec


class _Stated(TypedDict):
    identity: _Parts
    identity_hash: str


FINGERPRINT_DIGITS = 8
LONGEST = 200
"""Characters of a record that a message repeats."""
TRANSCODED_FROM = "transcoded_from"
"""The part of an identity that only transcoded targets have: the codec of their source."""


def build_identity(
    *,
    teacher: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    view_policy: Mapping[str, Any],
    codec: Mapping[str, Any],
) -> Identity:
    """Put together an identity; every part is a flat mapping of JSON values.

    Args:
        teacher: name, weights hash, precision, grid and target width.
        preprocessing: the pixel path: size, interpolation, mean and std.
        view_policy: name and parameters of the crops, the seed included.
        codec: name and parameters of how targets are stored.
    """
    parts = {
        "teacher": teacher,
        "preprocessing": preprocessing,
        "view_policy": view_policy,
        "codec": codec,
    }
    return {name: dict(part) for name, part in parts.items()}


def transcoded_identity(source: Identity, codec: Mapping[str, Any]) -> Identity:
    """Build the identity of targets that were decoded and stored again by another codec.

    Each codec loses something, so all earlier ones stay in the identity, the last one outermost.

    Args:
        source: of the targets that were decoded.
        codec: name and parameters of how they are stored now.
    """
    before = dict(source["codec"])
    if TRANSCODED_FROM in source:
        before[TRANSCODED_FROM] = source[TRANSCODED_FROM]
    return source | {"codec": dict(codec), TRANSCODED_FROM: before}


def content_hash(document: Mapping[str, Any]) -> str:
    """Hash any JSON mapping, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def short_fingerprint(text: str) -> str:
    """Return a fingerprint of images in 8 digits: the first ones, or those of a hash of a text.

    Shards have a hash already; of folders the text begins with a number of images.
    """
    is_hash = re.fullmatch("[0-9a-f]+", text) is not None
    return (text if is_hash else content_hash({"fingerprint": text}))[:FINGERPRINT_DIGITS]


def stated_identity(document: Mapping[str, Any], *, what: str) -> Identity:
    """Return the identity in a store's root or a manifest, checked against its hash.

    Args:
        document: has `identity` and `identity_hash`.
        what: where it lies.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        conforming(document, _Stated)
    except DocumentError as error:
        raise DataError(
            f"{what} does not say what its targets are ({error}); make it again"
        ) from error
    identity: Identity = document["identity"]
    if content_hash(identity) != document["identity_hash"]:
        raise DataError(
            f"{what} does not match its identity_hash; it is damaged, make it again with "
            "--overwrite"
        )
    return identity


def recorded_targets(inputs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what a run's record says of its targets by teacher, in the order of its heads.

    Args:
        inputs: of the run's record; of a run on pixels, there are no targets.

    Returns:
        A mapping with `identity` and `identity_hash` of each; the name of a single one is empty.
    """
    if "identity" in inputs:
        return {"": inputs}
    parts: Mapping[str, Any] = inputs.get("targets", {})
    return {name: parts[name] for name in sorted(parts)}


def identities_of(inputs: Mapping[str, Any]) -> dict[str, Identity]:
    """Return the identities of the targets that a run learnt; see `recorded_targets`."""
    return {name: part["identity"] for name, part in recorded_targets(inputs).items()}


def without(identity: Mapping[str, Any], parts: Collection[str]) -> dict[str, Any]:
    """Return an identity without some of its parts, which may differ from another's."""
    return {name: part for name, part in identity.items() if name not in parts}


def differences(
    left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """List the fields (dotted paths) in which two nested mappings differ, with both values."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(set(left) | set(right)):
        a, b = left.get(name), right.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append((f"{prefix}{name}", a, b))
    return found


def own_content(content: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content options that no input stands for.

    Of one that is an input, too, such as `encoder`, the input's fingerprint says what it is,
    wherever it lies.
    """
    return {name: value for name, value in content.items() if name not in inputs}


def require_same(
    existing: Mapping[str, Any], wanted: Mapping[str, Any], *, what: str, remedy: str
) -> None:
    """Refuse two documents that differ, naming each field and both values.

    Raises:
        MismatchError: they differ.
    """
    found = differences(existing, wanted)
    if found:
        raise MismatchError(f"{what} was made with other parameters: {listing_of(found)}; {remedy}")


def listing_of(found: Iterable[tuple[str, Any, Any]]) -> str:
    """Write fields that differ, with both values, in words.

    Args:
        found: of `differences`: there and here.
    """
    return ", ".join(f"{name} is {_value(a)} there and {_value(b)} here" for name, a, b in found)


def _value(value: Any) -> str:
    """Write a value; a long record is only said to be there.

    None is what the other version of this program, or other options, lack.
    """
    if value is None:
        return "not given"
    text = repr(value)
    return "given" if isinstance(value, Mapping) and len(text) > LONGEST else text


def require_hash(identity: Identity, wanted: str, *, what: str) -> None:
    """Refuse targets that differ from those that another process means by the same URL.

    Args:
        identity: of the targets that lie here.
        wanted: hash of the identity that is meant.
        what: where they lie.

    Raises:
        MismatchError: they differ.
    """
    if content_hash(identity) != wanted:
        raise MismatchError(
            f"{what} holds other targets here than for the process that began; give a URL "
            "or a folder that all machines share"
        )


def require_stage(previous: Mapping[str, Any], stage: str, *, what: str) -> None:
    """Refuse a folder that another stage wrote.

    Args:
        previous: the record there; an empty one is nobody's.
        stage: that is to write there.
        what: names the folder.

    Raises:
        MismatchError: another one wrote it.
    """
    there = previous.get("stage", stage)
    if there != stage:
        raise MismatchError(
            f"{what} holds the output of `{there}`, not of `{stage}`; give another output folder"
        )
