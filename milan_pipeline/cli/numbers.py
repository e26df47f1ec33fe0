"""Numbers as users write them: 1e6, 1_000_000, 1.3M, 110kB, 2GB/s, 1%."""

import math
import re

POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}
GROUPED = re.compile(r"[-+]?\d{1,3}([, ']\d{3})+")
DIGITS = r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
SCALED = re.compile(rf"({DIGITS}) ?([kKMGT]?)")
BYTES = re.compile(rf"({DIGITS}) ?([kKMGT]?)(i?)(?:B|bytes)?(?:/s)?")
SHARE = re.compile(rf"({DIGITS}) ?%")
PER_BYTE, BY_SHARE = ("bytes", "bytes/s"), ("share",)
UNSCALED = ("GB", "seconds", *BY_SHARE)
"""Units of numbers that no letter may stand behind: 500M would be megabytes, and 5M minutes."""


def whole_number(text: str, unit: str | None = None) -> int:
    """Return a whole number.

    Args:
        text: as it was given.
        unit: of the option.

    Raises:
        ValueError: it is none; the message says how to write one.
    """
    try:
        return int(text)
    except ValueError:
        pass
    value = _number(text, unit)
    if value is None or not value.is_integer():
        raise ValueError(f"{text!r} is no whole number{_hint(text, unit)}")
    return int(value)


def real_number(text: str, unit: str | None = None) -> float:
    """Return a number, as `whole_number` does."""
    try:
        return float(text)
    except ValueError:
        pass
    value = _number(text, unit)
    if value is None:
        raise ValueError(f"{text!r} is no number{_hint(text, unit)}")
    return value


def _number(text: str, unit: str | None) -> float | None:
    """Return the value of a number with letters behind it; None if it is none of a finite value."""
    text = text.strip()
    if unit in BY_SHARE and (share := SHARE.fullmatch(text)):
        return float(share[1]) / 100
    if unit in UNSCALED:
        return None
    found = (BYTES if unit in PER_BYTE else SCALED).fullmatch(text)
    if found is None:
        return None
    base = 1024 if unit in PER_BYTE and found[3] else 1000
    value = float(found[1]) * base ** POWERS[found[2].replace("K", "k")]
    return round(value, 6) if math.isfinite(value) else None


def _hint(text: str, unit: str | None) -> str:
    if GROUPED.fullmatch(text.strip()):
        return f"; write {re.sub('[^-+0-9]', '', text)}"
    if unit in PER_BYTE:
        return "; write bytes, as 110000 or 110kB"
    if unit == "GB":
        return "; write gigabytes, as 0.5"
    return "; write a share of 1, as 0.01 or 1%" if unit in BY_SHARE else ""
