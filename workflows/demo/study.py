"""What MILAN's targets are worth on the demo's scenes: python -m workflows.demo.study FOLDER.

Four encoders (random weights, pixel reconstruction, MILAN's student, its teacher) by k-NN, linear
classifiers, fine-tuning with 1%, 10% and all labels and segmentation, over several seeds. If it is
killed or stopped, the same command continues. The results are FOLDER/study.md, study.json and
study.png.
"""

import argparse
import signal
import sys
from pathlib import Path

from workflows.demo.study_report import report
from workflows.demo.study_tasks import FULL, QUICK, study_tasks
from workflows.demo.task_graph import TaskError, locked, run_tasks

SMALL_MODELS = {
    # Two processes of one thread train small models faster than one of two.
    "OMP_NUM_THREADS": "1",
    # Keeping freed memory instead of returning it makes small-model steps 15-20% faster.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
EXIT_INTERRUPTED = 75


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 if a command failed or a check of the report does not hold."""
    parser = argparse.ArgumentParser(description="Compare encoders on the demo's scenes.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--scenes-seed",
        type=int,
        default=0,
        help="seed of the scenes; tune options on another one, so that no choice sees these",
    )
    parser.add_argument("--jobs", type=int, default=2, help="commands that run together")
    parser.add_argument("--quick", action="store_true", help="tiny: only to see that it works")
    options = parser.parse_args(arguments)
    out, seeds = options.out, tuple(dict.fromkeys(options.seeds))
    size = QUICK if options.quick else FULL
    tasks = study_tasks(out, seeds=seeds, size=size, scenes_seed=options.scenes_seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_INTERRUPTED))
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out):
            run_tasks(tasks, logs=out / "logs", jobs=options.jobs, environment=SMALL_MODELS)
            holds = report(out, seeds)
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    # Tiny trainings prove nothing, either way.
    return 0 if holds or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
