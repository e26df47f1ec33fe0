"""Names that look alike, as é is one character (NFC) or, on macOS, two (NFD), or are not UTF-8."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from milan_pipeline.errors import DataError
from milan_pipeline.images.file_faults import shortened

ONE_FORM = "give names one form of Unicode (`convmv -r --nfc` of Linux does it)"


NO_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes of a text that is not UTF-8, as `surrogateescape` decodes them."""


def in_one_form(name: str) -> str:
    """Return a name in the form NFC."""
    return unicodedata.normalize("NFC", name)


def require_distinct(classes: Iterable[str], place: Path) -> None:
    """Refuse classes whose names look alike, of which each would have a part of the images.

    Raises:
        DataError: there are two; both are named.
    """
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(" ".join(in_one_form(name).split()), name)
        if other != name:
            raise DataError(
                f"{place} has two classes {shortened(name.strip())}, which differ in spaces or in "
                f"their form of Unicode ({other!a} and {name!a}); rename one to the other"
            )
