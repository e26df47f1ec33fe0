"""Facts are sections of named values: JSON, or text for a terminal or a page.

The end of a name gives the unit: `..._bytes`, `..._seconds`; a `..._share` is a part of 1.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from milan_pipeline.core.console import named_lines, short_bytes

Facts = dict[str, dict[str, Any]]
"""By section, then by name: plain JSON values."""
MOST_ITEMS = 5
MOST_LETTERS = 22


def flattened(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted names."""
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def label_of(name: str) -> str:
    """Write a fact's name for people; what is written for them already stays as it is."""
    if " " in name:
        return name
    for end in ("_bytes", "_seconds"):
        name = name.removesuffix(end)
    return name.replace("_", " ")


def text_of(name: str, value: Any) -> str:
    """Write a fact's value for people, with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(name, value)
    if isinstance(value, Mapping):
        value = [f"{inner}: {text_of(inner, found)}" for inner, found in value.items()]
    if isinstance(value, list | tuple):
        return _listed([text_of("", item) for item in value]) if value else "none"
    return "none" if value is None else str(value)


def _number(name: str, value: float) -> str:
    if name.endswith("_share"):
        return f"{100 * value:.3g}%"
    if name.endswith("bytes"):
        return short_bytes(value)
    if name.endswith("_seconds"):
        return in_time(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if abs(value) >= 10_000 and "seed" not in name else str(value)


def in_time(seconds: float) -> str:
    """Write a time by its largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 100:
        return f"{minutes} min"
    return f"{hours} h" if hours < 100 else f"{hours / 24:.3g} days"


def short_key(key: str) -> str:
    """Return a key as pictures show it: of a long one its folder, often the class, and its end."""
    if len(key) <= MOST_LETTERS:
        return key
    folder, _, name = key.rpartition("/")
    return f"{folder.rpartition('/')[2]}/\u2026{name[-6:]}" if folder else f"\u2026{name[-18:]}"


def lines_of(facts: Facts) -> Iterator[str]:
    """Yield aligned lines for a terminal, one a fact, below a line for each section."""
    width = max((len(label_of(name)) for part in facts.values() for name in part), default=0)
    for section, part in facts.items():
        yield section
        pairs = ((f"  {label_of(name)}", text_of(name, value)) for name, value in part.items())
        yield from named_lines(pairs, width=2 + width)


def _listed(parts: list[str]) -> str:
    shown = ", ".join(parts[:MOST_ITEMS])
    return shown + (f" and {len(parts) - MOST_ITEMS} more" if len(parts) > MOST_ITEMS else "")
