"""Run a study: python -m workflows.study STUDY.yaml --out FOLDER.

If it is killed or stopped, the same command goes on. The results are FOLDER/study.md, study.json
and study.html.
"""

import argparse
import contextlib
import dataclasses
import signal
import sys
from pathlib import Path

from milan_pipeline.errors import ConfigError, MilanError
from workflows.study.reading import read_study
from workflows.study.snakefile import snakefile
from workflows.study.spec import Study
from workflows.study.task_graph import (
    TaskError,
    done_tasks,
    drop_stale_marks,
    locked,
    run_tasks,
)
from workflows.study.tasks import study_tasks

SMALL_MODELS = {
    # Two processes of one thread train small models faster than one of two.
    "OMP_NUM_THREADS": "1",
    # Keeping freed memory instead of returning it makes small-model steps 15-20% faster.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
EXIT_INTERRUPTED = 75


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 if a command failed or the study cannot be read."""
    options = parser_of_study().parse_args(arguments)
    out: Path = options.out
    try:
        study = _chosen(read_study(options.study), options)
        tasks = study_tasks(study, out)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    logs, marks = out / "logs", out / "done"
    if options.dry_run:
        done = {task.name for task in done_tasks(tasks, marks)}
        left = [task.name for task in tasks if task.name not in done]
        print("\n".join([*left, f"{len(left)} of {len(tasks)} to do"]))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_INTERRUPTED))
    environment = SMALL_MODELS | {"OMP_NUM_THREADS": str(options.threads)}
    try:
        # What is there can be reported while the study goes on.
        with contextlib.nullcontext() if options.report else locked(out):
            if options.snakefile:
                file = out / "Snakefile"
                text = snakefile(tasks, file, logs=logs, marks=marks, threads=options.threads)
                file.write_text(text, encoding="utf-8")
                drop_stale_marks(tasks, marks)
                print(f"{file}: {len(tasks)} rules")
                return 0
            if not options.report:
                run_tasks(tasks, logs=logs, jobs=options.jobs, marks=marks, environment=environment)
            # Plots and torch are loaded when there is something to report, not before.
            from workflows.study.report import report  # noqa: PLC0415

            print(report(study, out, marks=marks, tasks=tasks), end="")
    except (TaskError, MilanError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def parser_of_study() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workflows.study",
        description="Train and measure a study's students, and write tables, plots and a page.",
    )
    parser.add_argument("study", type=Path, help="the study's YAML, such as cifar10.yaml here")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything it makes")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the study's")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="MEASURE", help="columns to leave out"
    )
    parser.add_argument("--jobs", type=int, default=2, help="commands that run together")
    parser.add_argument("--threads", type=int, default=1, help="threads of each command")
    parser.add_argument("--dry-run", action="store_true", help="only list the commands to do")
    parser.add_argument("--report", action="store_true", help="only report what is there")
    parser.add_argument(
        "--snakefile", action="store_true", help="only write OUT/Snakefile, for Slurm and others"
    )
    return parser


def _chosen(study: Study, options: argparse.Namespace) -> Study:
    """Return the study with what the command line says in its place.

    Raises:
        ConfigError: a column is left out that is not there.
    """
    for title in options.leave_out:
        if title not in study.measures:
            raise ConfigError(
                f"--leave-out {title!r} is no measure; the measures are {', '.join(study.measures)}"
            )
    measures = {t: m for t, m in study.measures.items() if t not in options.leave_out}
    seeds = list(dict.fromkeys(options.seeds)) if options.seeds else study.seeds
    return dataclasses.replace(study, measures=measures, seeds=seeds)


if __name__ == "__main__":
    sys.exit(main())
