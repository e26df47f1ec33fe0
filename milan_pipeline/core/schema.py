"""JSON from disk, held to the types that its readers rely on, in one place.

A type is written as Python writes it: a dataclass, a `TypedDict`, `dict[str, str]`. An error says
what was expected and where: "Expected `int`, got `str` - at `$.shards[0].samples`".
"""

import dataclasses
import json
from typing import Annotated, Any, TypedDict, TypeVar

import msgspec

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of something, an offset or a size."""

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]

MISSHAPEN = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading a document raises that is no JSON or of other types: name its file, say it once."""


class Skipped(TypedDict):
    """A line of a ledger: what was passed over, and why."""

    key: str
    reason: str


def parsed(text: bytes | str, kind: type[T]) -> T:
    """Read a JSON document of a type.

    Args:
        text: the document.
        kind: a dataclass, whose fields are all that it may hold; or any other type, where a
            `TypedDict` keeps its own fields alone.

    Raises:
        MISSHAPEN: it is no JSON, or of another type; the message is one line.
    """
    return conforming(json.loads(text), kind)


def conforming(document: Any, kind: type[T]) -> T:
    """Do as `parsed`, for a document that was read already."""
    if dataclasses.is_dataclass(kind):
        unknown = document.keys() - {field.name for field in dataclasses.fields(kind)}
        if unknown:
            raise KeyError(f"there is no field {min(unknown)!r:.80}")
    return msgspec.convert(document, kind)
