"""The faults that every stage meets, one at a time, and what may come of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.campaign import COUNTS
from tests.faults.file_systems.every_stage import Small, Stage
from tests.faults.file_systems.faulty import Outcome
from tests.faults.sameness import difference

EXIT_FAILED, EXIT_USAGE = 1, 2
KEPT = "in addition: ['checkpoints/"
"""An old checkpoint that cannot be read is not deleted, and a warning says so."""


class Fault(NamedTuple):
    """A rule of `faults.c` that is of any path of the small world.

    Attributes:
        name: for the counts.
        errno: what calls fail with.
        calls: which of them.
        reach: how many, or which.
    """

    name: str
    errno: str
    calls: str
    reach: str

    def rule(self, root: Path, first: int) -> str:
        """Return the rule; `first` is the number of the call that it begins with."""
        return f"{self.errno} {self.calls} {root}/* {first} {self.reach}"


FAULTS = (
    Fault("not allowed to list", "EACCES", "list", "path"),
    Fault("not allowed to open", "EACCES", "open", "path"),
    Fault("not allowed to enter", "EACCES", "stat,open,list", "path"),
    Fault("not allowed to write", "EACCES", "create,mkdir", "path"),
    Fault("EIO, listing", "EIO", "entry", "path"),
    Fault("EIO, reading", "EIO", "read", "path"),
    Fault("ESTALE, opening", "ESTALE", "open,stat", "path"),
    Fault("twice ESTALE, listing", "ESTALE", "list,entry", "2"),
    Fault("twice EIO, reading", "EIO", "read", "2"),
    Fault("twice ESTALE, opening", "ESTALE", "open,stat", "2"),
    Fault("twice EIO, writing", "EIO", "create,write,rename", "2"),
    Fault("no locks: ENOLCK", "ENOLCK", "lock", "all"),
    Fault("no locks: ENOSYS", "ENOSYS", "lock", "all"),
    Fault("no locks: EOPNOTSUPP", "EOPNOTSUPP", "lock", "all"),
    Fault("quota of space", "EDQUOT", "write", "all"),
    Fault("quota of files", "EDQUOT", "create,mkdir", "all"),
    Fault("no space left", "ENOSPC", "write,rename", "all"),
    Fault("no inodes left", "ENOSPC", "create,mkdir", "all"),
)


def kind_of(fault: Fault, stage: Stage) -> str:
    """Return under which name what comes of a fault is counted."""
    return f"{fault.name}, {stage.name}"


def reached(stage: Stage, small: Small) -> dict[Fault, int]:
    """Count the calls of an undisturbed stage that each fault is of."""
    out = small.root / "counted"
    rules = [fault.rule(small.root, 0) for fault in FAULTS]
    outcome = small.disk.run(stage.words(small, out), *rules)
    assert outcome.code == 0, outcome.said
    clear(out)
    return dict(zip(FAULTS, outcome.counts, strict=True))


def disturb(fault: Fault, stage: Stage, small: Small, first: int) -> None:
    """Run a stage with a fault, and again without it where it failed; count what came of both."""
    right = small.outcome(stage)
    out = small.root / "out"
    words = stage.words(small, out)
    outcome = small.disk.run(words, fault.rule(small.root, first))
    if not outcome.hits[0]:  # threads differ in how often they read
        return
    count = COUNTS[kind_of(fault, stage)]
    count.tried += 1
    case = f"{fault.name}, call {first}, {outcome.paths[0]}, {stage.name}"
    path = Path(outcome.paths[0].rstrip("/"))
    # Where all calls fail, any of them may be the one that is told of.
    names = (str(small.root),) if fault.reach == "all" else (path.name, str(path.parent))
    problems, silent, told = list(_problems(outcome, names)), False, bool(outcome.code)
    if outcome.code:
        again = small.disk.run(words)
        if again.code:
            problems.append(f"a rerun failed: {again.said}")
        elif found := difference(stage.outcome(out, again.said), right):
            problems.append(f"a rerun ended otherwise: {found}; {outcome.said}; {again.said}")
    elif outcome.code == 0 and (found := difference(stage.outcome(out, outcome.said), right)):
        told = _is_warned(outcome, names) and found.startswith(KEPT)
        silent = not told
        if silent:
            problems.append(f"no error, and another result: {found}; {outcome.said}")
    clear(out)
    if problems:
        count.fail(case, "; ".join(problems), silent=silent)
    elif told:
        count.detected += 1
    else:
        count.harmless += 1


def _problems(outcome: Outcome, names: tuple[str, ...]) -> Iterator[str]:
    """Say what is wrong with how a command failed."""
    if outcome.code is None:
        yield f"it hangs: {outcome.said}"
    elif outcome.code not in (0, EXIT_FAILED, EXIT_USAGE) or "Traceback" in outcome.said:
        yield f"it ended with {outcome.code}: {outcome.said}"
    elif outcome.code:
        error = outcome.error
        if not error or "unexpected " in error or ";" not in error:
            yield f"no sentence with a remedy: {outcome.said}"
        elif not any(name in error for name in names):
            yield f"the sentence names none of {names}: {error}"


def _is_warned(outcome: Outcome, names: tuple[str, ...]) -> bool:
    """Tell whether a warning names what failed."""
    warnings = [line for line in outcome.said.splitlines() if line.startswith("Warning: ")]
    return any(name in line for name in names for line in warnings)


def disturb_by(kind: str, rule: str, stage: Stage, small: Small) -> None:
    """Run a stage under a rule that must make no difference; count what comes of it."""
    out = small.root / "out"
    count = COUNTS[f"{kind}, {stage.name}"]
    count.tried += 1
    outcome = small.disk.run(stage.words(small, out), rule)
    found = outcome.said if outcome.code != 0 else ""
    found = found or difference(stage.outcome(out, outcome.said), small.outcome(stage))
    clear(out)
    if found:
        count.fail(stage.name, found, silent=outcome.code == 0)
    else:
        count.harmless += 1
    count.require_none_failed()


def clear(out: Path) -> None:
    """Delete what a stage wrote, also beside its output."""
    for path in out.parent.glob(f"{out.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
