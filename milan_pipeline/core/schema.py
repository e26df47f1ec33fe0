"""Reads JSON documents, and checks the types that their readers rely on.

A type is written as Python writes it: a dataclass, a `TypedDict`, `dict[str, str]`. An error says
what was expected and where: "Expected `int`, got `str` - at `$.shards[0].samples`".
"""

import dataclasses
import json
from typing import Annotated, Any, TypeVar

import msgspec

from milan_pipeline.core.file_kinds import HEAD, stand_in

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of something, an offset or a size."""

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class DocumentError(ValueError):
    """A document is no JSON, or its types are wrong; the caller adds which file it is."""


def parsed(text: bytes | str, kind: type[T]) -> T:
    """Read a JSON document of a type.

    Args:
        text: the document.
        kind: a dataclass, whose fields are all that it may hold; or any other type, where a
            `TypedDict` keeps its own fields alone.

    Raises:
        DocumentError: it is no JSON, or of another type; the message is one line.
    """
    try:
        # In UTF-8: json would take bytes with NULs, as a lost block leaves them, for UTF-32.
        document = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        head = text[:HEAD] if isinstance(text, bytes) else text[:HEAD].encode(errors="replace")
        other = stand_in(head)
        raise DocumentError(str(error) if other is None else f"it {other}") from error
    return conforming(document, kind)


def conforming(document: Any, kind: type[T]) -> T:
    """Check a document that was read already, as `parsed` does."""
    if dataclasses.is_dataclass(kind):
        known = {field.name for field in dataclasses.fields(kind)}
        unknown = set(document) - known if isinstance(document, dict) else set()
        if unknown:
            raise DocumentError(f"there is no field {min(unknown)!r:.80}")
    try:
        return msgspec.convert(document, kind)
    except (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise DocumentError(str(error)) from error
