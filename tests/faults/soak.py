"""Extract, pack and pretrain again and again, killed at random every 20 to 60 seconds.

`make soak` runs it for SOAK_MINUTES (60 by default). Each round must end in what an undisturbed
one gives; the counts are printed, and a round that does not ends it.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults import sameness
from tests.faults.campaign import chance
from tests.faults.jobs import Inputs, extract_words, pretrain_words
from tests.faults.victims import Victims, Words, finish

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SECONDS_BETWEEN = (20.0, 60.0)
VIEWS, EPOCHS = 40, 200


class Soak:
    """Rounds, and what has been done to them so far."""

    def __init__(self, root: Path) -> None:
        self.inputs = Inputs(root)
        self.root = root
        self.kills = {"extract-targets": 0, "pack-targets": 0, "pretrain": 0}
        self.rounds = 0
        self._moments = chance("soak")
        self._end = self._next = float("inf")

    def disturb_for(self, minutes: float) -> None:
        """Disturb rounds for so long; the last one then goes on to its end.

        Raises:
            SystemExit: a round did not end as it must.
        """
        right = self._round("undisturbed")
        self._end = time.monotonic() + 60 * minutes
        self._plan()
        while time.monotonic() < self._end:
            found = self._round(f"round-{self.rounds:03d}")
            self.rounds += 1
            problem = sameness.difference(found, right)
            print(f"round {self.rounds}: {problem or 'equal'}; kills: {self.kills}", flush=True)
            if problem:
                sys.exit(1)

    def _plan(self) -> None:
        now = time.monotonic()
        self._next = now + self._moments.uniform(*SECONDS_BETWEEN)
        if now > self._end:
            self._next = float("inf")

    def _round(self, name: str) -> dict[str, Any]:
        """Do a round; return its outputs."""
        folder = self.root / name
        folder.mkdir()
        for words in commands(self.inputs, folder):
            self._do(words, folder / "log.txt")
        store, run = sameness.data_set(folder / "targets.zarr"), sameness.run(folder / "run")
        return store | run

    def _do(self, words: Words, log: Path) -> None:
        """Run a command until it has ended, killing it whenever it is time."""
        while True:
            with Victims([words], log) as victims:
                while not victims.ended(1):
                    if time.monotonic() >= self._next:
                        victims.kill()
                [code] = victims.codes()
            if code == 0:
                return
            if code != -signal.SIGKILL:
                sys.exit(f"{words[0]} ended with {code}: {victims.said()}")
            self.kills[str(words[0])] += 1
            self._plan()


def commands(inputs: Inputs, folder: Path) -> list[Words]:
    """Return the commands of a round, one after the other, that write into a folder."""
    store, targets = folder / "targets.zarr", folder / "targets"
    return [
        extract_words(inputs, store, "--views", VIEWS),
        ["pack-targets", "--targets", store, "--out", targets, "--workers", 1],
        pretrain_words(inputs.shards, targets, folder / "run", "--epochs", EPOCHS),
    ]


def main() -> None:
    """Soak in a temporary folder."""
    with tempfile.TemporaryDirectory() as root:
        soak = Soak(Path(root))
        finish(["--version"], Path(root) / "log.txt")
        soak.disturb_for(MINUTES)
    print(
        f"{sum(soak.kills.values())} kills, {soak.rounds} rounds, all equal to an undisturbed one"
    )


if __name__ == "__main__":
    main()
