"""The `.json` beside weights: how timm makes the model again, and the pixels that it is given."""

import json
from typing import Any, TypedDict

from milan_pipeline.documents import MISSHAPEN, conforming
from milan_pipeline.errors import DataError
from milan_pipeline.sums import read_checked

Channels = tuple[float, float, float]


class Arguments(TypedDict):
    """Of `timm.create_model`; any others may be there."""

    model_name: str


class Description(TypedDict):
    """What is relied on of a description, whatever the weights are of."""

    timm: Arguments
    mean: Channels
    std: Channels


def read_document(url: str, kind: type[Any], *, what: str, remedy: str) -> dict[str, Any]:
    """Read a description, checked against its hash.

    Args:
        url: of the `.json`.
        kind: what must be in it.
        what: must be described, for the message.
        remedy: for what is damaged.

    Raises:
        MissingDataError: it is not there.
        DataError: it says something else.
    """
    data = read_checked(url)
    try:
        document: dict[str, Any] = json.loads(data)
        conforming(document, kind)
    except MISSHAPEN as error:
        raise DataError(f"{url} describes no {what} ({error}); {remedy}") from error
    return document
