"""How the campaign counts: each fault is detected by name, shown to be harmless, or a failure.

Randomness comes from `FAULTS_SEED` (default 0) and a kind's name alone. `FAULTS=slice` (default)
tries a part of the cases, spread evenly; `FAULTS=whole` tries all. Each process
of pytest-xdist counts for itself; `merge` adds them up.
"""

import collections
import contextlib
import dataclasses
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from milan_pipeline.errors import MilanError

SEED = int(os.environ.get("FAULTS_SEED", "0"))
SCALE = os.environ.get("FAULTS", "slice")
COUNTED = ("tried", "detected", "harmless", "silent", "unexplained")
SHOWN = 5
"""Failures that are named, of each kind."""

if SCALE not in ("slice", "whole"):
    raise ValueError(f"FAULTS={SCALE} is no scale; give slice or whole")


@dataclasses.dataclass
class Count:
    """What became of the faults of one kind.

    Attributes:
        detected: refused by an error of ours, in one line, that names what was broken.
        harmless: what reached the consumer was equal to what the undisturbed gives.
        silent: it was something else, without an error.
        unexplained: an error of others, or one that does not name what was broken.
        failures: the cases of the last two, described.
    """

    tried: int = 0
    detected: int = 0
    harmless: int = 0
    silent: int = 0
    unexplained: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)

    def fail(self, case: str, how: str, *, silent: bool = False) -> None:
        """Count a failure."""
        self.silent += silent
        self.unexplained += not silent
        self.failures.append(f"{case}: {how}")

    def require_none_failed(self) -> None:
        """Fail the test that counted, naming the first failures."""
        assert self.tried == self.detected + self.harmless, "\n".join(self.failures[:SHOWN])


COUNTS: collections.defaultdict[str, Count] = collections.defaultdict(Count)
"""Of this process, and of those whose counts were merged, by kind."""


def attempt(
    kind: str,
    case: str,
    consume: Callable[[], Any],
    *,
    names: Sequence[str],
    expected: Any = None,
) -> None:
    """Let a consumer have something broken, and count what becomes of it.

    Args:
        kind: under which it is counted.
        case: says what was broken, in words.
        consume: returns what reaches the consumer.
        names: of what was broken; a good error has one of them.
        expected: what the undisturbed gives; None where any result is a failure.
    """
    count = COUNTS[kind]
    count.tried += 1
    try:
        found = consume()
    except MilanError as error:
        text = str(error)
        if "\n" not in text and any(name in text for name in names):
            count.detected += 1
        else:
            count.fail(case, f"an error that names none of {list(names)}: {text}")
    except Exception as error:  # noqa: BLE001 - which is what must not happen
        count.fail(case, f"{type(error).__name__}: {error}")
    else:
        if expected is not None and found == expected:
            count.harmless += 1
        else:
            count.fail(case, "no error, and another result", silent=True)


def compare(kind: str, read: Callable[[], Any], *, expected: Any) -> None:
    """Count what becomes of a fault in a reader of others, to set beside ours: nothing may fail."""
    count = COUNTS[kind]
    count.tried += 1
    try:
        found = read()
    except Exception:  # noqa: BLE001 - of whatever kind, it tells of the fault
        count.detected += 1
        return
    count.harmless += found == expected
    count.silent += found != expected


def scaled(whole: int, part: int) -> int:
    """Return how many cases to try: all, or what a slice has of them."""
    return whole if SCALE == "whole" else part


def chance(kind: str) -> random.Random:
    """Return a source of randomness of a kind's own."""
    return random.Random(f"{SEED} {kind}")


@contextlib.contextmanager
def broken(path: Path, data: bytes | None) -> Iterator[None]:
    """Have a file hold other bytes, or be missing, for a while."""
    good = path.read_bytes()
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(good)


def flipped(data: bytes, bit: int) -> bytes:
    """Return bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def table() -> list[str]:
    """Write the counts as a Markdown table."""
    counts = sorted(COUNTS.items())
    rows = [f"| {kind} | " + " | ".join(_figures(count)) + " |" for kind, count in counts]
    return ["| broken | " + " | ".join(COUNTED) + " |", "|---|" + "--:|" * len(COUNTED), *rows]


def document() -> dict[str, Any]:
    """Return the counts, their scale and seed as a JSON document."""
    kinds = {kind: dataclasses.asdict(count) for kind, count in sorted(COUNTS.items())}
    return {"scale": SCALE, "seed": SEED, "kinds": kinds}


def merge(other: dict[str, Any]) -> None:
    """Add the counts in another process's `document`."""
    for kind, counts in other["kinds"].items():
        ours = COUNTS[kind]
        for name, value in counts.items():
            setattr(ours, name, getattr(ours, name) + value)


def _figures(count: Count) -> list[str]:
    return [f"{getattr(count, name):,}" for name in COUNTED]
