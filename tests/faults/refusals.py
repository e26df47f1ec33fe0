"""What a stage may say when its storage fails it, and that it goes on when that has passed."""

from collections.abc import Sequence
from pathlib import Path

from tests.faults.campaign import COUNTS
from tests.faults.jobs import Inputs, Job
from tests.faults.stops import gone_on
from tests.faults.victims import Victims

EXIT_FAILED, EXIT_USAGE = 1, 2


def count_failure(
    kind: str, job: Job, inputs: Inputs, out: Path, victims: Victims, *, names: Sequence[str]
) -> None:
    """Count what became of a job whose storage failed; what failed has been mended by now.

    Detected is an error in one line that names one of `names`, harmless is having completed. After
    either the job, run again, must end as an undisturbed one.
    """
    codes = victims.codes()
    said = [line for line in victims.said().splitlines() if line.startswith("Error: ")]
    problems = gone_on(job, inputs, out)
    if set(codes) - {0, EXIT_FAILED, EXIT_USAGE} or "Traceback" in victims.said():
        problems.append(f"it ended with {codes}: {victims.said()}")
    if any(codes) and not any(name in line for line in said for name in names):
        problems.append(f"an error that names none of {list(names)}: {victims.said()}")
    if any("unexpected" in line for line in said):
        problems.append(f"an error of others: {said}")
    count = COUNTS[kind]
    count.tried += 1
    if problems:
        count.fail(out.name, "; ".join(problems))
    elif any(codes):
        count.detected += 1
    else:
        count.harmless += 1
