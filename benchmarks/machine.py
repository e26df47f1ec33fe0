"""Describes the machine that a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine_line(*packages: str) -> str:
    """Return one line: the CPU, how many cores this process may use, and versions."""
    versions = [f"{package} {version(package)}" for package in packages]
    cores = len(os.sched_getaffinity(0))
    return f"{cpu_name()}, {cores} cores; Python {platform.python_version()}, {', '.join(versions)}"


def cpu_name() -> str:
    """Return the CPU's name as Linux gives it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
