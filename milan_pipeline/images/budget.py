"""How many unreadable images a stage tolerates; if there are more, its error names some."""

import dataclasses
import itertools
import posixpath
from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict

from milan_pipeline.errors import BadImageError, DataError

NAMED_BAD_IMAGES = 10


class Skipped(TypedDict):
    """An image that a shard lacks, and why; `file` is its name where files are packed."""

    key: str
    file: NotRequired[str]
    reason: str


class LedgerRow(Skipped):
    """An unreadable image of any shard."""

    shard: str


@dataclasses.dataclass(kw_only=True)
class BadImageBudget:
    """A fraction of the images may be unreadable; unless it is 0, a few are tolerated anyway.

    Attributes:
        fraction: of the images that may be unreadable.
        images: how many there are; an unreadable one counts once, in however many views.
        always: number tolerated however few images there are, unless the fraction is 0.
        ledger: the unreadable images so far, each with its reason.
    """

    fraction: float
    images: int
    always: int = 1
    ledger: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, shard: str, skipped: Iterable[Skipped]) -> None:
        """Count skipped images, rows of `{key, reason}`.

        Raises:
            DataError: there are more than allowed; the first ten are named.
        """
        self.note(shard, skipped)
        self.require_within()

    def note(self, shard: str, skipped: Iterable[Skipped]) -> None:
        """Count skipped images without a check; see `require_within`."""
        self.ledger |= {f"{shard}:{row['key']}": row["reason"] for row in skipped}

    def require_within(self) -> None:
        """Refuse more unreadable images than are allowed.

        Raises:
            DataError: there are; the first ten are named.
        """
        allowed = max(self.always, int(self.fraction * self.images)) if self.fraction > 0 else 0
        if len(self.ledger) > allowed:
            named = itertools.islice(self.ledger.items(), NAMED_BAD_IMAGES)
            raise DataError(
                f"{len(self.ledger)} of {self.images} images are unreadable, more than "
                f"--max-bad-fraction {self.fraction} allows: "
                f"{', '.join(f'{place} ({reason})' for place, reason in named)}; "
                "repair or remove them, or raise the fraction"
            )


def ledger_row(sample: dict[str, Any], error: BadImageError) -> LedgerRow:
    """Say which sample cannot be decoded, and why; shards are named without their folder."""
    shard = posixpath.basename(sample["__url__"].rstrip("/"))
    return {"shard": shard, "key": sample["__key__"], "reason": str(error)}
