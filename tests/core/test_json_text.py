"""What is written fast is what the standard library writes."""

import json
from typing import Any

import pytest

from milan_pipeline.core.json_text import indented_bytes

TEXTS = (
    "",
    "plain",
    'quote"',
    "back\\slash",
    "ä",
    "\udcff",
    "tab\t",
    "\x7f",
    "\u2028",
    "a/b",
    "<&>",
)


@pytest.mark.parametrize(
    "document",
    [
        *({"b": text, "a": {text: [text]}} for text in TEXTS),
        {"n": -(2**63), "m": 2**64 - 1, "none": None, "yes": True, "empty": [{}, [], ""]},
        {"B": 1, "a": {"z": [[1, 2], {"y": []}], "b": {}}, "_": 0},
        [],
        {},
    ],
)
def test_it_is_what_json_dumps_gives(document: Any) -> None:
    assert indented_bytes(document) == json.dumps(document, indent=1, sort_keys=True).encode()
