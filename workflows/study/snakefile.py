"""A study as a Snakefile, for Snakemake's schedulers, such as Slurm.

A rule's output is the mark that the study itself would write, so that either goes on from what the
other has done.
"""

import json
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from workflows.study.task_graph import Task, digests

HEAD = """# Written by `python -m workflows.study`. Run it from the checkout's root:
#   snakemake --snakefile {file} --cores 2
# On Slurm, add --workflow-profile workflows/snakemake/profiles/slurm. Where its nodes have no GPU,
# add --config gpus=0.
rule all:
    input:
        {marks},
"""
RULE = """

rule {name}:
    input:
        {needs},
    output:
        {mark},
    log:
        {log},
    params:
        digest={digest},
    threads: {threads}
    resources:
        {resources},
    shell:
        {shell}
"""
COMPUTING = ("extract-targets", "pretrain", "probe", "finetune", "segment")
RESOURCES = 'gpu=config.get("gpus", 1),\n        runtime=config.get("minutes", 1440)'
"""Of a command that computes. A profile can set them by names of rules alone, which differ here."""


def snakefile(tasks: Iterable[Task], file: Path, *, logs: Path, marks: Path, threads: int) -> str:
    """Return the text of a Snakefile.

    Args:
        tasks: of the study.
        file: where it will lie.
        logs: see `run_tasks`.
        marks: see `run_tasks`.
        threads: cores of a command that computes.
    """
    tasks = list(tasks)
    digest_of = digests(tasks)

    def mark(name: str) -> str:
        return json.dumps(str(marks / f"{name}.json"))

    text = HEAD.format(file=file, marks=", ".join(mark(task.name) for task in tasks))
    for number, task in enumerate(tasks):
        computes = not set(task.command).isdisjoint(COMPUTING)
        log = logs / f"{task.name}.log"
        note = (sys.executable, "-m", "workflows.study.mark", marks, task.name)
        done = shlex.join([*map(str, note), digest_of[task.name]])
        shell = f"{shlex.join(task.command)} >> {shlex.quote(str(log))} 2>&1 && {done}"
        text += RULE.format(
            name=f"task_{number:03}_{re.sub('[^a-zA-Z0-9]+', '_', task.name)}",
            needs=", ".join(map(mark, task.needs)) or "[]",
            mark=mark(task.name),
            log=json.dumps(str(log)),
            digest=json.dumps(digest_of[task.name]),
            threads=threads if computes else 1,
            resources=RESOURCES if computes else "gpu=0",
            shell=json.dumps(shell.replace("{", "{{").replace("}", "}}")),
        )
    return text
