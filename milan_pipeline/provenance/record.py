"""The record that a stage writes beside its output, for its next run and for later stages.

A record is written as "running" before the work and as "done" after it. Content parameters and
inputs must not differ between runs into one output; execution parameters (workers, device) may.
"""

import calendar
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.console import note
from milan_pipeline.core.cores import threads_in_use
from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.provenance.identity import (
    content_hash,
    own_content,
    require_same,
    require_stage,
)

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
RECORDED_PACKAGES = (
    "milan-pipeline",
    "numpy",
    "open_clip_torch",
    "pillow",
    "timm",
    "torch",
    "torchvision",
    "webdataset",
    "zarr",
)


class _Record(TypedDict):
    """The fields of a record that are read."""

    state: str
    content: dict[str, Any]
    inputs: dict[str, Any]
    config: dict[str, Any]
    extent: dict[str, Any]
    source: NotRequired[dict[str, Any]]
    started: str


def config_by_role(config: Any) -> dict[str, dict[str, Any]]:
    """Split a stage's configuration into its content, extent and execution parameters."""
    split: dict[str, dict[str, Any]] = {"content": {}, "extent": {}, "execution": {}}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        split[field.metadata["role"]][field.name] = list(value) if type(value) is tuple else value
    return split


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of every installed package that affects outputs.

    They are looked up once a process; do not change what is returned.
    """
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@dataclasses.dataclass(kw_only=True)
class StageRecord:
    """`STAGE.json` in an output folder: resolved configuration, inputs, versions, counts, time.

    `content` (by default the content options) and `inputs` must stay the same from run to run;
    `extent` says how much of them there is, and may differ. `source` is what later stages need to
    know of this one.
    """

    url: str
    stage: str
    config: Any
    inputs: Mapping[str, Any]
    content: Mapping[str, Any] | None = None
    extent: Mapping[str, Any] | None = None
    source: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self._started, self._made = time.time(), time.monotonic()
        self._threads_before: int | None = None
        self._roles = config_by_role(self.config)
        # A stage may say better than its options what its output depends on.
        self._content = dict(self._roles["content"] if self.content is None else self.content)

    def previous_state(self) -> str | None:
        """Return "running" or "done" if an earlier run left a record here, None otherwise.

        With `--overwrite`, a record of other content parameters or inputs counts as none.

        Raises:
            MismatchError: that run had others, and they are not to be overwritten.
        """
        previous = read_record(self.url)
        if previous is None:
            return None
        what = storage.folder_of(self.url)
        require_stage(previous, self.stage, what=what)
        known = previous["inputs"]
        then = {"options": own_content(self._content_of(previous), known), "inputs": known}
        ours = {"options": own_content(self._content, known), "inputs": dict(self.inputs)}
        now = json.loads(json.dumps(ours))
        if getattr(self.config, "overwrite", False):
            return str(previous["state"]) if then == now else None
        or_anew = ", or --overwrite to make it anew" if hasattr(self.config, "overwrite") else ""
        require_same(then, now, what=what, remedy=f"give another output folder{or_anew}")
        if previous["state"] == "running":
            self._threads_before = previous.get("threads")
        return str(previous["state"])

    def begin(self) -> None:
        """Write the record as "running"; say so where a resume computes with other threads."""
        before, now = self._threads_before, self._threads()
        if before is not None and before != now:
            note(
                f"{storage.folder_of(self.url)} was begun with {before} threads and goes on with "
                f"{now}, so last bits may differ from those of an undisturbed run; --threads "
                f"{before} keeps them equal"
            )
        self._write("running", {})

    def join(self) -> None:
        """Begin, or join what other processes have begun, and keep their time of start.

        Any number may do so at once: they write the same, and the last to finish writes "done".
        """
        previous = read_record(self.url)
        if previous is not None and previous["state"] == "running":
            self._started = timestamp_of(previous["started"])
            if self._is_of(previous):
                return
        self.begin()

    def require_joinable(self, *options: str) -> None:
        """Refuse to join what others have begun with another extent, or with other options.

        A process that does less would mark everything as done when its own part is.

        Args:
            options: fields of the configuration that must be equal in all processes.

        Raises:
            MismatchError: they do not; the option and both values are named.
        """
        previous = read_record(self.url)
        if previous is None or previous["state"] != "running":
            return
        if previous["content"] != json.loads(json.dumps(self._content)):
            return
        ours, folder = self._config(), storage.folder_of(self.url)
        for name in options:
            theirs, flag = previous["config"].get(name), f"--{name.replace('_', '-')}"
            if theirs != ours[name]:
                raise MismatchError(
                    f"{flag} {ours[name]} is not what {folder} was begun with, {theirs}; give "
                    f"{flag} {theirs}, or run `{self.stage} --init` again with {flag} {ours[name]}"
                )
        if not self._is_of(previous):
            raise MismatchError(
                f"{folder} was begun with images as --images {previous['config'].get('images')} "
                f"listed them then, --images {ours.get('images')} lists others now; run "
                f"`{self.stage} --init` again with these"
            )

    def is_current(self) -> bool:
        """Tell whether the record still has this content and extent: others may have begun anew."""
        previous = read_record(self.url)
        return previous is None or self._is_of(previous)

    def finish(self, counts: Mapping[str, Any]) -> None:
        """Write the record as "done", with what was counted; delete what killed runs left."""
        self._write("done", counts)
        path = storage.local_path(self.url)
        with contextlib.suppress(OSError):
            if path is not None:
                # By the disk's clock: those of nodes that write into the same folder may differ.
                began = path.stat().st_mtime - (time.monotonic() - self._made)
                storage.remove_leftovers(storage.folder_of(self.url), before=began)

    def to_bytes(
        self, state: str, counts: Mapping[str, Any], *, seconds: float | None = None
    ) -> bytes:
        """Serialise the record as it is in a state.

        Args:
            state: "running" or "done".
            counts: what was counted.
            seconds: time that the stage took; None is the time since this object was made.
        """
        seconds = time.time() - self._started if seconds is None else seconds
        document = {
            "stage": self.stage,
            "state": state,
            "content": self._content,
            "config": self._config(),
            "inputs": dict(self.inputs),
            "extent": dict(self.extent or {}),
            **({} if self.source is None else {"source": dict(self.source)}),
            "versions": versions(),
            **({} if self._threads() is None else {"threads": self._threads()}),
            "counts": dict(counts),
            "started": utc_text(self._started),
            "seconds": round(seconds, 3),
        }
        return record_bytes(document)

    def _config(self) -> dict[str, Any]:
        return {name: value for part in self._roles.values() for name, value in part.items()}

    def _threads(self) -> int | None:
        """Return how many threads this process computes with; None for a stage that does not."""
        return threads_in_use() if hasattr(self.config, "threads") else None

    def _is_of(self, record: Mapping[str, Any]) -> bool:
        """Whether a record has this content and extent."""
        ours = json.loads(json.dumps([self._content, dict(self.extent or {})]))
        return [self._content_of(record), record["extent"]] == list(ours)

    def _content_of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a record says its output depends on.

        An option that came in after the record was written has its default there: what an option
        does by default is what versions without it do.
        """
        newer = {
            field.name: field.default
            for field in dataclasses.fields(self.config)
            if field.name in self._content and field.default is not dataclasses.MISSING
        }
        return {**json.loads(json.dumps(newer)), **record["content"]}

    def _write(self, state: str, counts: Mapping[str, Any]) -> None:
        storage.put_bytes(self.url, self.to_bytes(state, counts))


def utc_text(seconds: float) -> str:
    """Write a moment, in seconds since 1970, as text."""
    return time.strftime(TIME_FORMAT, time.gmtime(seconds))


def timestamp_of(text: str) -> float:
    """Read `utc_text` back, to the second.

    Raises:
        DocumentError: it is no such text.
    """
    try:
        return float(calendar.timegm(time.strptime(text, TIME_FORMAT)))
    except ValueError as error:
        raise DocumentError(str(error)) from error


def ended_at(record: Mapping[str, Any]) -> str | None:
    """Return when the stage ended, as text; None if it has not, or the record does not say."""
    seconds = record.get("seconds")
    if record["state"] != "done" or not isinstance(seconds, int | float):
        return None
    return utc_text(timestamp_of(record["started"]) + seconds)


def record_bytes(document: Mapping[str, Any]) -> bytes:
    """Serialise a record with its own hash, in the place of any that it has."""
    plain = json.loads(json.dumps({k: v for k, v in document.items() if k != "sha256"}))
    return (json.dumps(plain | {"sha256": content_hash(plain)}, indent=1) + "\n").encode()


def read_record(url: str) -> dict[str, Any] | None:
    """Read a record; None where there is none.

    Raises:
        DataError: it is damaged.
    """
    try:
        document = parsed(storage.read_bytes(url), dict[str, Any])
        if document.pop("sha256", None) != content_hash(document):
            raise DocumentError("it does not match its own hash")
        timestamp_of(conforming(document, _Record)["started"])
    except MissingDataError:
        return None
    except DocumentError as error:
        raise DataError(
            f"{url} is damaged ({error}); restore it or give another output folder"
        ) from error
    return document
