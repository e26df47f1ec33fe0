"""Slurm's commands as small scripts that write down how they were called."""

from pathlib import Path

CALLED = 'echo "${0##*/} $*" >> "$FAKE_SLURM/calls"\n'
SBATCH = """[ ! -e "$FAKE_SLURM/refuse" ] || { cat "$FAKE_SLURM/refuse" >&2; exit 1; }
echo $((100 + $(grep -c ^sbatch "$FAKE_SLURM/calls")))
"""


class FakeSlurm:
    """A folder for the PATH, and what its commands were asked and answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bodies = {"sbatch": SBATCH, "squeue": 'cat "$FAKE_SLURM/queue"\n', "scontrol": ""}
        for name, body in bodies.items():
            script = folder / name
            script.write_text(f"#!/bin/sh\n{CALLED}{body}")
            script.chmod(0o755)
        self.queue = []

    @property
    def calls(self) -> list[str]:
        """The command lines so far."""
        log = self.folder / "calls"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def queue(self) -> list[str]:
        """What squeue says."""
        return (self.folder / "queue").read_text().splitlines()

    @queue.setter
    def queue(self, lines: list[str]) -> None:
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))

    @property
    def refuse(self) -> str:
        """Why sbatch refuses everything."""
        return (self.folder / "refuse").read_text()

    @refuse.setter
    def refuse(self, reason: str) -> None:
        (self.folder / "refuse").write_text(reason)
