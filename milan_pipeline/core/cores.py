"""The cores that this process may use, and the threads that it computes with; imports no torch."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from threadpoolctl import threadpool_limits

from milan_pipeline.core.console import warn
from milan_pipeline.errors import ConfigError

AUTO = "auto"
MOST_THREADS = 1024
WAIT_POLICY = "OMP_WAIT_POLICY"


def own_cores(processes: int = 1) -> int:
    """Return how many cores each of this machine's processes may use, at least 1.

    A scheduler may give a job some cores alone, and a container may have a quota.

    Args:
        processes: on this machine, where torchrun does not tell.
    """
    if hasattr(os, "sched_getaffinity"):  # of Linux
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    sharing = int(told) if told.isdecimal() and int(told) else processes
    return max(1, int(min(usable, quota_cores())) // sharing)


def quota_cores(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float:
    """Return how many cores' time this process may use, by its control group and those above.

    Args:
        own: file that names the group, as Linux has it.
        root: where version 2 of control groups is mounted.

    Returns:
        Infinity where there is no quota, or no control group.
    """
    try:
        names = [line[3:] for line in own.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return math.inf
    quotas = [math.inf]
    for name in names:
        place = root / name.lstrip("/")
        for group in [place, *place.parents][: len(place.parts) - len(root.parts) + 1]:
            with contextlib.suppress(OSError, ValueError):  # no file, or "max"
                quota, period = map(int, (group / "cpu.max").read_text().split())
                quotas.append(quota / period)
    return min(quotas)


def wait_without_spinning() -> None:
    """Have threads that wait for each other sleep, in libraries that are loaded from now on.

    By default a thread of torch runs in circles while it waits, also where another program has the
    core that the thread it waits for should run on. See "Training is slow" in
    docs/troubleshooting.md for what that takes.
    """
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")


@contextlib.contextmanager
def computing(options: object) -> Iterator[None]:
    """Compute with as many threads as `--threads` says inside the block, where there is one.

    "auto" is the number that torch chose (cores, or OMP_NUM_THREADS), and at most the cores that
    this process may use. It does not depend on the load, since last bits of results depend on it.

    Args:
        options: of the stage, by name; `processes` are those that share this machine.

    Raises:
        ConfigError: it says more than `MOST_THREADS`, which would take all memory.
    """
    threads = getattr(options, "threads", None)
    torch = sys.modules.get("torch")  # where it is not loaded, nothing is computed
    if isinstance(threads, int) and threads > MOST_THREADS:
        raise ConfigError(
            f"--threads {threads} is more than the {MOST_THREADS} that a process may have; give "
            f"at most the number of cores, {own_cores()}"
        )
    if threads is None or torch is None:
        yield
        return
    before = torch.get_num_threads()
    if threads == AUTO:
        threads = min(before, own_cores(getattr(options, "processes", None) or 1))
    _warn_of_load()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):  # the BLAS of numpy and of scipy
            yield
    finally:
        torch.set_num_threads(before)


def threads_in_use() -> int | None:
    """Return how many threads torch computes with here; None where it is not loaded."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _warn_of_load() -> None:
    if hasattr(os, "getloadavg") and os.environ.get("LOCAL_RANK", "0") == "0":  # told once
        text = text_on_load(load_of_others(), os.cpu_count() or 1)
        if text is not None:
            warn(text)


def text_on_load(load: float, cores: int) -> str | None:
    """Say what helps where other programs keep the cores busy; None where they do not."""
    if load <= cores:
        return None
    return (
        f"other programs use this machine's {cores} cores (load {load:.1f}), so this takes longer "
        "than on an idle one; run fewer at once, or leave them room by --threads 1"
    )


def load_of_others() -> float:
    """Return the mean load of the last minute, or what runs just now if that is less.

    An earlier stage of this very pipeline may have been the load of the last minute.
    """
    now = math.inf
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux alone tells
        running = Path("/proc/loadavg").read_text().split()[3].split("/")[0]
        now = int(running) - 1  # without this thread
    return min(os.getloadavg()[0], now)
