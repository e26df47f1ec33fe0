"""Compares our code with numbers that official code produced.

`python -m benchmarks.parity CASE.safetensors` reads the case and CASE.json beside it, whose `kind`
says what was recorded: without a kind, a pretraining step; `finetune`, `linprobe` and `knn`, what
follows pretraining; `posembed`, positions for another grid; `views`, the pixels of the evaluation
view. Our own code computes the same with the case's sizes and settings, and a table of deviations
is printed. It exits with 0 if all are within tolerance, with 1 if one is not, and with 2 if the
case cannot be read.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.parity_cases import finetune, knn, linprobe, posembed, pretraining, views
from benchmarks.parity_cases.case import Case, Deviation, read_case
from milan_pipeline.errors import DataError, MilanError

FAILED, UNREADABLE = 1, 2
KINDS: dict[str | None, Callable[[Case], Iterator[Deviation]]] = {
    None: pretraining.compare,
    "finetune": finetune.compare,
    "linprobe": linprobe.compare,
    "knn": knn.compare,
    "posembed": posembed.compare,
    "views": views.compare,
}


def compare(case: Case) -> Iterator[Deviation]:
    """Replay a case and yield the deviation of each of our numbers.

    Raises:
        MilanError: its kind is unknown, or its parts do not fit each other.
    """
    kind = case.values.get("kind")
    if kind not in KINDS:
        known = ", ".join(name for name in KINDS if name)
        raise DataError(f"kind {kind!r} is unknown; leave it out or take one of {known}")
    yield from KINDS[kind](case)


def main(argv: list[str] | None = None) -> int:
    """Compare one case, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("case", type=Path, metavar="CASE.safetensors")
    path = parser.parse_args(argv).case
    try:
        deviations = list(compare(read_case(path)))
    except MilanError as error:
        print(f"Error: {error}", file=sys.stderr)
        return UNREADABLE
    except KeyError as error:
        print(f"Error: {path} lacks {error}; record the case again", file=sys.stderr)
        return UNREADABLE
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        print(f"Error: {path} does not fit together ({reason}); record it again", file=sys.stderr)
        return UNREADABLE
    print(f"{'':56} {'official':>14} {'ours':>14}     {'deviation':>9} {'allowed':>8}")
    for line in deviations:
        print(
            f"{line.what:56} {line.official:14.8g} {line.ours:14.8g} {line.kind} "
            f"{line.deviation:9.1e} {line.tolerance:8.1e}{'' if line.within else '  BEYOND'}"
        )
    beyond = sum(not line.within for line in deviations)
    print(f"{len(deviations)} compared, {beyond} beyond tolerance")
    return FAILED if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
