"""The manifest of a folder of shards: their names, counts, sizes and hashes.

A shard that is not in the manifest does not exist. The manifest carries its own hash and that of
every index.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from milan_pipeline import storage
from milan_pipeline.core.garbage import no_search_for_cycles
from milan_pipeline.core.schema import Count, DocumentError, conforming, parsed
from milan_pipeline.errors import ConfigError, DataError, MismatchError, MissingDataError
from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.listing import Rows, content_sha256, scan
from milan_pipeline.shards.shard_names import index_name, stem_of, url_in

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
Kind = Literal["images", "targets"]
_BEGINNING = re.compile(rb'\{\s*"format_version": \d+,\s*"kind": "(images|targets)"')
_HEAD_BYTES = 1 << 16


class ImageDetails(TypedDict):
    """What is known of an image shard; `image_field` is the extension of its images, if given."""

    skipped: NotRequired[list[Skipped]]
    image_field: NotRequired[str]


class TargetDetails(TypedDict):
    """What a target shard was made of, and of what identity its targets are."""

    view: Count
    source: str
    source_sha256: str
    skipped: list[Skipped]
    unit_sha256: NotRequired[str]
    identity_hash: NotRequired[str]


class _Versioned(TypedDict):
    sha256: str
    format_version: Any


class _Kind(TypedDict):
    kind: Kind


class _Listing(TypedDict):
    kind: str
    complete: bool


_DETAILS = {"images": ImageDetails, "targets": TargetDetails}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One listed tar: its name beside the manifest (or a full URL), counts and hashes.

    `details` holds what only one kind of shard has: for target shards the view, the source shard
    and the keys that its unit skipped.
    """

    name: str
    samples: Count
    bytes: Count
    sha256: str
    index_sha256: str
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def from_row(cls, row: Any, kind: str) -> "Shard":
        """Read what a manifest of a kind of shards has of one; raises `DocumentError`."""
        shard = conforming(row, cls)
        conforming(shard.details, _DETAILS[kind])
        return shard

    @property
    def stem(self) -> str:
        """The file name without `.tar`: what names the shard's units."""
        return stem_of(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The list of shards of one kind ("images" or "targets") and what they have in common.

    `complete` is false while the stage that writes the shards runs, or if it was killed.
    """

    kind: str
    folder: str
    shards: tuple[Shard, ...]
    complete: bool = True
    common: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def samples(self) -> int:
        """The number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    def url_of(self, shard: Shard) -> str:
        """Return where a shard lies."""
        return url_in(self.folder, shard.name)

    def index_url_of(self, shard: Shard) -> str:
        """Return where a shard's index lies: always in the manifest's folder."""
        return storage.join(self.folder, index_name(shard.name))

    def content(self) -> dict[str, Any]:
        """Return the JSON document without its own hash."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "complete": self.complete,
            **self.common,
            # `dataclasses.asdict` copies each value, which takes seconds for 100,000 shards.
            "shards": [vars(shard) | {"details": dict(shard.details)} for shard in self.shards],
        }

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of all that is listed here."""
        return content_sha256(self.content())

    def to_bytes(self) -> bytes:
        """Serialise."""
        document = self.content() | {"sha256": self.sha256}
        return (json.dumps(document, indent=1) + "\n").encode()

    def save(self) -> None:
        """Write `manifest.json`, atomically."""
        storage.put_bytes(storage.join(self.folder, MANIFEST_NAME), self.to_bytes())


def holds_manifest(folder: str) -> bool:
    """Tell whether a folder has a manifest of shards, which may be damaged."""
    try:
        return stated_kind(folder) is not None
    except DocumentError:
        return True


def stated_kind(folder: str) -> Kind | None:
    """Return of which kind of shards a folder has a manifest; None if it has none.

    Other programs call their files so, too. Of a manifest that begins as ours do, no more is read:
    to parse a hundred thousand shards takes seconds.

    Raises:
        DocumentError: it may be a manifest of shards, and is damaged.
        StorageError: it cannot be read.
    """
    try:
        with contextlib.closing(storage.open_read(storage.join(folder, MANIFEST_NAME))) as stream:
            text = stream.read(_HEAD_BYTES)
            if begun := _BEGINNING.match(text):
                return cast(Kind, begun[1].decode())
            document = parsed(text + stream.read(), Any)
    except MissingDataError:
        return None
    if isinstance(document, dict) and {"format_version", "shards"} & document.keys():
        return conforming(document, _Kind)["kind"]
    return None


def not_ours(url: str, error: DocumentError) -> DataError:
    """Return the error for what is no manifest, and does not tell who wrote it."""
    return DataError(
        f"{url} is no manifest of shards ({error}); make it again, or move it away if another "
        "program wrote it"
    )


def load_manifest(
    url: str | os.PathLike[str], *, kind: str, allow_unfinished: bool = False
) -> Manifest:
    """Read and verify the manifest of a folder of shards (or a manifest's own URL).

    Args:
        url: the folder, or the manifest itself.
        kind: what its shards must be: "images" or "targets".
        allow_unfinished: accept the manifest of a stage that has not ended.

    Raises:
        MissingDataError, DataError: there is none; it is damaged, or of a newer version.
        MismatchError: it lists another kind of shard, or it is not complete.
        ConfigError: it is a signed URL, whose signature does not hold for the shards.
    """
    shards: list[Shard] = []

    def take(rows: Rows) -> None:
        shards.extend(Shard.from_row(row, kind) for row in rows)

    head = read_manifest(os.fspath(url), take, kind=kind, allow_unfinished=allow_unfinished)
    return _hashed(dataclasses.replace(head, shards=tuple(shards)), head.sha256)


def read_manifest(
    url: str, take: Callable[[Rows], None], *, kind: str, allow_unfinished: bool = False
) -> Manifest:
    """Read and verify a manifest as `load_manifest` does, but hand on the rows of its shards.

    Args:
        url: the folder, or the manifest itself.
        take: is given rows of JSON, some thousands at a time, and may raise `DocumentError`.
        kind: what its shards must be.
        allow_unfinished: accept the manifest of a stage that has not ended.

    Returns:
        The manifest without any shard, but with the hash of all. What was taken may be relied on
        only now.
    """
    place = url
    if storage.has_query(url):
        raise ConfigError(
            f"{url} ends in a query, which the files beside a manifest do not get; leave out what "
            "follows the ? or, where each file is signed, give the signed URLs of the tars to "
            "`milan-pipeline index --out FOLDER`, and that folder here"
        )
    if not url.endswith(".json"):
        url = storage.join(url, MANIFEST_NAME)
    try:
        with contextlib.closing(storage.open_read(url)) as stream, no_search_for_cycles():
            document, found, error = scan(stream, take)
        stated = conforming(document, _Versioned)
        if stated["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{url} has format version {stated['format_version']!r}, this program reads "
                f"{FORMAT_VERSION}; use the version that wrote it"
            )
        if stated["sha256"] != found:
            raise DataError(f"{url} does not match its own hash; it is damaged, make it again")
        listing = conforming(document, _Listing)
        if listing["kind"] != kind:
            raise MismatchError(
                f"{url} lists {listing['kind']!r:.80} shards where {kind!r} are needed; give those"
            )
        if error is not None:
            raise error
    except MissingDataError:
        makers = {
            "images": "`milan-pipeline pack-images` makes one from files, `milan-pipeline index` "
            "one for tars that are there",
            "targets": "`milan-pipeline pack-targets` makes it",
        }
        given = storage.give_enclosing(place, MANIFEST_NAME)
        raise MissingDataError(f"{url} does not exist; {given or makers[kind]}") from None
    except DocumentError as error:
        raise not_ours(url, error) from error
    folder, whole = storage.folder_of(url), listing["complete"]
    if not (whole or allow_unfinished):
        raise MismatchError(f"{url} is not complete; run the stage that writes it again")
    common = {n: v for n, v in document.items() if n not in {"sha256", "format_version", *listing}}
    head = Manifest(kind=kind, folder=folder, shards=(), complete=whole, common=common)
    return _hashed(head, found)


def _hashed(manifest: Manifest, sha256: str) -> Manifest:
    """Tell a manifest its hash, which takes long to compute."""
    vars(manifest)["sha256"] = sha256
    return manifest


def require_unique_stems(shards: tuple[Shard, ...]) -> None:
    """Refuse two shards of one name: their units would be the same.

    Some disks do not tell capital letters from small ones, so names must differ otherwise, too.

    Raises:
        MismatchError: two shards share a basename.
    """
    seen: dict[str, str] = {}
    for shard in shards:
        other = seen.get(shard.stem.casefold())
        if other is not None:
            called = " and ".join(f"{stem}.tar" for stem in dict.fromkeys((other, shard.stem)))
            raise MismatchError(
                f"two shards are called {called}; rename one of them, or pack "
                "one anew with another --prefix"
            )
        seen[shard.stem.casefold()] = shard.stem
