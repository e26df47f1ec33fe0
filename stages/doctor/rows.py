"""What is said of each thing that was looked at; nothing is measured here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from milan_pipeline.core.console import short_bytes

State = Literal["ok", "look", "bad"]
WORST_FIRST: tuple[State, ...] = ("bad", "look", "ok")
NO_GPU = "milan-pipeline plan --measure (says how long a teacher takes here)"
NEW_TORCH = "nvidia-smi (says which CUDA the driver has; then install the torch for it)"
NO_HUB = "--teacher local-dir:FOLDER, or --pretrained FILE (see docs/without-network.md)"
AS_FAST, FASTER = 0.9, 1.2
"""Rates that differ by less are called equal."""
LEAST_SHARED, ENOUGH_SHARED = 128 * 2**20, 2**30
LEAST_FREE = 10**9
SLOW_READING = 100e6
"""Bytes/s: what 900 JPEGs of ImageNet a second take."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ok; look, where something may be better; or bad, where work will fail.
        found: what is there, in words.
        remedy: a command or an option that helps; empty if all is well.
        facts: the same in numbers.
    """

    name: str
    state: State = "ok"
    found: str
    remedy: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def gpu_row(names: Sequence[str], *, has_driver: bool) -> Row:
    """Tell of the GPUs that torch finds.

    Args:
        names: of them, with their memory.
        has_driver: whether the system has a driver for NVIDIA's.
    """
    facts = {"gpus": list(names)}
    if names:
        return Row(name="GPU", found="; ".join(names), facts=facts)
    if has_driver:
        found = "this machine has NVIDIA's driver, but torch finds no GPU"
        return Row(name="GPU", state="bad", found=found, remedy=NEW_TORCH, facts=facts)
    return Row(name="GPU", state="look", found="none", remedy=NO_GPU, facts=facts)


def precision_row(rates: Mapping[str, float], chosen: str) -> Row:
    """Tell which precision is fast.

    Args:
        rates: of a matrix product in each, multiply-adds a second.
        chosen: what --precision auto takes.
    """
    own, best = rates[chosen], max(rates["fp32"], rates["bf16"])
    others = [
        f"{name} {rate / rates['fp32']:.2g} times as fast"
        for name, rate in rates.items()
        if name != "fp32"
    ]
    found = f"fp32 {rates['fp32'] / 1e9:.3g} G multiply-adds/s, {', '.join(others)}"
    facts = {"multiply_adds_per_s": dict(rates), "auto": chosen}
    if own >= AS_FAST * best or best < FASTER * own:
        return Row(name="precision", found=f"{found}; auto takes {chosen}", facts=facts)
    remedy = f"--precision {'fp32' if chosen == 'bf16' else 'bf16'} (auto takes {chosen})"
    return Row(name="precision", state="look", found=found, remedy=remedy, facts=facts)


def cores_row(usable: int, there: int) -> Row:
    """Tell how many of the machine's cores this process may use."""
    facts = {"usable": usable, "there": there}
    found = f"{usable} of {there} may be used"
    if usable >= there:
        return Row(name="cores", found=found, facts=facts)
    remedy = "--cpus-per-task N of submit or of Slurm, or --cpus N of a container"
    return Row(name="cores", state="look", found=found, remedy=remedy, facts=facts)


def load_row(load: float, there: int) -> Row:
    """Tell whether other programs keep the cores busy."""
    facts = {"load": load}
    found = f"{load:.1f} on {there} cores"
    if load <= there / 2:
        return Row(name="load", found=found, facts=facts)
    remedy = "--threads 1, or fewer programs at once"
    return Row(name="load", state="look", found=found, remedy=remedy, facts=facts)


def threads_row(threads: int, usable: int, variable: str | None) -> Row:
    """Tell with how many threads a process computes.

    Args:
        threads: what torch has chosen.
        usable: cores of this process.
        variable: OMP_NUM_THREADS.
    """
    taken = min(threads, usable)
    facts = {"threads": taken, "OMP_NUM_THREADS": variable}
    found = f"{taken} of a process, by --threads auto"
    if taken >= usable or variable is None:
        return Row(name="threads", found=found, facts=facts)
    return Row(
        name="threads",
        state="look",
        found=f"{found}: OMP_NUM_THREADS={variable} is set",
        remedy=f"unset OMP_NUM_THREADS, or --threads {usable}",
        facts=facts,
    )


def shared_memory_row(free: int | None) -> Row:
    """Tell whether loader processes have room for their batches.

    Args:
        free: bytes of /dev/shm; None where a system has none.
    """
    if free is None:
        return Row(name="shared memory", found="this system has no /dev/shm, and needs none")
    facts, found = {"free_bytes": free}, f"{short_bytes(free)} free in /dev/shm"
    if free >= ENOUGH_SHARED:
        return Row(name="shared memory", found=found, facts=facts)
    state: State = "look" if free >= LEAST_SHARED else "bad"
    remedy = "--shm-size 8g of the container, or --workers 0"
    return Row(name="shared memory", state=state, found=found, remedy=remedy, facts=facts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskSpeed:
    """Bytes a second of one large file."""

    written: float
    read: float


def no_folder_row(folder: str) -> Row:
    """Tell of a folder that is not there; a stage would make it."""
    found = f"{folder} is no folder, so that its disk is not timed"
    return Row(
        name="disk", state="look", found=found, remedy=f"mkdir -p {folder}, or another FOLDER"
    )


def disk_row(folder: str, speed: DiskSpeed | str, free: int) -> Row:
    """Tell of the disk that a folder is on.

    Args:
        folder: its path.
        speed: or the reason why nothing can be written there.
        free: bytes.
    """
    if isinstance(speed, str):
        found = f"{folder} cannot be written to ({speed})"
        return Row(name="disk", state="bad", found=found, remedy="another FOLDER")
    facts = {"folder": folder, "free_bytes": free, **dataclasses.asdict(speed)}
    rates = f"writes {short_bytes(speed.written)}/s, reads {short_bytes(speed.read)}/s"
    found = f"{folder} {rates}, {short_bytes(free)} free"
    if free < LEAST_FREE:
        remedy = f"milan-pipeline plan --out {folder} (compares bytes), or another FOLDER"
        return Row(name="disk", state="look", found=found, remedy=remedy, facts=facts)
    if speed.read < SLOW_READING:
        remedy = "--cache FOLDER of a faster disk, for pretrain"
        return Row(name="disk", state="look", found=found, remedy=remedy, facts=facts)
    return Row(name="disk", found=found, facts=facts)


def hub_row(failure: str | None) -> Row:
    """Tell whether weights can be downloaded.

    Args:
        failure: why not; None if the hub has answered.
    """
    facts = {"answers": failure is None}
    if failure is None:
        return Row(name="hub", found="answers", facts=facts)
    return Row(name="hub", state="look", found=f"no answer ({failure})", remedy=NO_HUB, facts=facts)
