"""How many unreadable images a stage puts up with, and their names when there are more."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

from milan_pipeline.errors import DataError

NAMED_BAD_IMAGES = 10


@dataclasses.dataclass(kw_only=True)
class BadImageBudget:
    """A fraction of the images may be unreadable, and always a single one.

    `images` counts images, not views of them: an unreadable one counts once, in however many views.
    """

    fraction: float
    images: int
    ledger: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, shard: str, skipped: Iterable[Mapping[str, str]]) -> None:
        """Count skipped images, rows of `{key, reason}`.

        Raises:
            DataError: there are more than allowed; the first ten are named.
        """
        self.ledger |= {f"{shard}:{row['key']}": row["reason"] for row in skipped}
        allowed = max(1, int(self.fraction * self.images)) if self.fraction > 0 else 0
        if len(self.ledger) > allowed:
            named = itertools.islice(self.ledger.items(), NAMED_BAD_IMAGES)
            raise DataError(
                f"{len(self.ledger)} of {self.images} images are unreadable, more than "
                f"--max-bad-fraction {self.fraction} allows: "
                f"{', '.join(f'{place} ({reason})' for place, reason in named)}; "
                "mend them or raise the fraction"
            )
