"""Runs commands that need each other, a few at a time, each with its own log.

A command that is done leaves a mark with a hash of it and of all that it needed. While the hash is
the same and the output is there, it is not run again. One without a mark is: every stage goes on
from what it has, or says "nothing to do".
"""

import contextlib
import fcntl
import os
import resource
import subprocess
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO

from milan_pipeline.provenance.identity import content_hash
from workflows.study.mark import read_mark, write_mark

POLL = 0.2  # seconds between looks at the commands that run
PATIENCE = 30.0  # what a stopped command started may outlast it by a moment
LAST_LINES = 12


@dataclass(frozen=True, kw_only=True)
class Task:
    """One command.

    Attributes:
        name: of its log and its mark.
        command: its words.
        needs: names of the tasks that must be finished before it starts.
        output: what is there once it is done; None if nothing is known.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    output: Path | None = None


class TaskError(RuntimeError):
    """A command failed; the message names it and ends with its last lines."""


@dataclass
class _Running:
    task: Task
    process: subprocess.Popen[bytes]
    began: float


def in_order(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks so that each comes after what it needs; else as they are given.

    Raises:
        ValueError: tasks need each other in a circle.
    """
    by_name = {task.name: task for task in tasks}
    return [by_name[name] for name in _sorter(by_name).static_order()]


def digests(tasks: Iterable[Task]) -> dict[str, str]:
    """Return a hash of each task's command and of those of all that it needs, by name."""
    found: dict[str, str] = {}
    for task in in_order(tasks):
        needs = [found[need] for need in sorted(task.needs)]
        found[task.name] = content_hash({"command": list(task.command), "needs": needs})[:16]
    return found


def is_done(task: Task, digest: str, marks: Path) -> bool:
    """Tell whether a task was done as it is now, and its output is still there."""
    there = task.output is None or task.output.exists()
    return there and read_mark(marks, task.name).get("digest") == digest


def done_tasks(tasks: Iterable[Task], marks: Path) -> list[Task]:
    """Return the tasks that were done as they are now."""
    tasks = list(tasks)
    digest_of = digests(tasks)
    return [task for task in tasks if is_done(task, digest_of[task.name], marks)]


def drop_stale_marks(tasks: Iterable[Task], marks: Path) -> None:
    """Remove the marks of tasks that are to be done again, for whoever looks at the files alone."""
    tasks = list(tasks)
    done = {task.name for task in done_tasks(tasks, marks)}
    for task in tasks:
        if task.name not in done:
            (marks / f"{task.name}.json").unlink(missing_ok=True)


def run_tasks(
    tasks: Iterable[Task],
    *,
    logs: Path,
    jobs: int,
    marks: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run all tasks that are not done, at most `jobs` at a time; print a line for each that is.

    Args:
        tasks: of those that can start, the first ones start first.
        logs: folder for `<task>.log`, to which a command's output is added.
        jobs: commands that run together.
        marks: folder for `<task>.json`, written once a task is done.
        environment: variables for the commands, in addition to this process's own.

    Raises:
        ValueError: tasks need each other in a circle.
        TaskError: a command failed; those that ran at the same time were stopped.
    """
    by_name = {task.name: task for task in tasks}
    digest_of, sorter = digests(by_name.values()), _sorter(by_name)
    sorter.prepare()
    for folder in (logs, marks):
        folder.mkdir(parents=True, exist_ok=True)
    preference = list(by_name)
    waiting: list[str] = []
    running: list[_Running] = []
    finished = 0
    with _stopping(running):
        while sorter.is_active():
            while ready := sorter.get_ready():  # again, for those that needed what is done
                for name in ready:
                    if is_done(by_name[name], digest_of[name], marks):
                        finished += 1
                        sorter.done(name)
                    else:
                        waiting.append(name)
            waiting.sort(key=preference.index)
            while waiting and len(running) < jobs:
                running.append(_start(by_name[waiting.pop(0)], logs, environment or {}))
            ended = [(one, cpu) for one in running if (cpu := _cpu_of_ended(one)) is not None]
            for one, cpu in ended:
                running.remove(one)
                _require_success(one, logs)
                finished += 1
                seconds = time.monotonic() - one.began
                write_mark(marks, one.task.name, digest_of[one.task.name], seconds, cpu)
                print(f"[{finished}/{len(by_name)}] {one.task.name}: {seconds:.0f} s", flush=True)
                sorter.done(one.task.name)
            if running and not ended:
                time.sleep(POLL)


def _sorter(by_name: Mapping[str, Task]) -> TopologicalSorter[str]:
    return TopologicalSorter({task.name: task.needs for task in by_name.values()})


@contextlib.contextmanager
def locked(folder: Path, *, patience: float = PATIENCE) -> Generator[None, None, None]:
    """Lock a folder for this process and the commands it starts, until all of them have ended.

    Args:
        folder: has the lock's file.
        patience: seconds to wait for processes that are just ending.

    Raises:
        TaskError: another process has it, or a command that a killed process left running.
    """
    with (folder / "lock").open("w") as file:
        deadline = time.monotonic() + patience
        while not _has_lock(file):
            if time.monotonic() >= deadline:
                raise TaskError(
                    f"{folder} is in use by another process, or by a command that a killed one "
                    "left running; wait for it to end"
                )
            time.sleep(POLL)
        os.set_inheritable(file.fileno(), True)
        yield


def _has_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _stopping(running: list[_Running]) -> Generator[None, None, None]:
    """When the block ends, stop the commands that still run, and wait until they have stopped."""
    try:
        yield
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()


def _start(task: Task, logs: Path, environment: Mapping[str, str]) -> _Running:
    with (logs / f"{task.name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment),
            close_fds=False,  # so that `locked` lasts as long as the command
        )
    return _Running(task, process, time.monotonic())


def _cpu_of_ended(one: _Running) -> float | None:
    """Return the CPU seconds of a command and of all that it started; None while it runs.

    The system adds them to this process's children's when it is asked whether the command ended.
    """
    before = _cpu_of_children()
    return None if one.process.poll() is None else _cpu_of_children() - before


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _require_success(one: _Running, logs: Path) -> None:
    if one.process.returncode == 0:
        return
    log = logs / f"{one.task.name}.log"
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    raise TaskError(
        f"{one.task.name} failed (exit code {one.process.returncode}): "
        + " ".join(one.task.command)
        + "\n"
        + "\n".join(f"  {line}" for line in last)
        + f"\nall of it: {log}; run the study again to go on from here"
    )
