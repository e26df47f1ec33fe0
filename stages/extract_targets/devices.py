"""Extract on several devices of this machine: a process each, with a part of the units.

The processes share only the store, as parts of a job array do. This process shows what they do
together, by their progress reports.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable

import torch
from tqdm import tqdm

from milan_pipeline.cluster.launch import run_together, words_of
from milan_pipeline.cluster.work import Part
from milan_pipeline.core.console import output_words
from milan_pipeline.core.devices import pick_devices
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.errors import MilanError
from milan_pipeline.provenance.progress_reports import read_reports
from milan_pipeline.provenance.reporter import WRITE_EVERY
from milan_pipeline.stages.extract_targets.command import ExtractTargets


def on_one_device(config: ExtractTargets) -> ExtractTargets:
    """Return a configuration without `--devices`, if they are one: this process does it all."""
    devices = _devices_of(config)
    if len(devices) != 1:
        return config
    return dataclasses.replace(config, devices=None, device=str(devices[0]))


def shares_of(config: ExtractTargets) -> list[ExtractTargets]:
    """Return the configuration of each process: its device, and its share of this one's units.

    The command line of a share leaves nothing to be settled, and it overwrites nothing.
    """
    devices = _devices_of(config)
    whole = config.own_part or Part(0, 1)
    return [
        dataclasses.replace(
            config,
            devices=None,
            device=str(device),
            part=str(whole.share(number, len(devices))),
            overwrite=False,
        )
        for number, device in enumerate(devices)
    ]


def extract_on_devices(config: ExtractTargets, images: int) -> None:
    """Have each device's process do its share; end with their exit code unless all are done.

    Args:
        config: with nothing left open; the store is there.
        images: how many are left to do, for the progress bar.
    """
    torch.cuda.empty_cache()  # the first process needs the memory that our teacher had
    shares = shares_of(config)
    words = [[*words_of(share), *_output_words()] for share in shares]
    names = {part.name for share in shares if (part := share.own_part)}
    with progress_bar("extract-targets", total=images) as bar:
        code = run_together(
            "extract-targets", [(own, {}) for own in words], _following(config.out, names, bar)
        )
        if code:
            sys.exit(code)
        bar.update(images - bar.n)


def _devices_of(config: ExtractTargets) -> list[torch.device]:
    return pick_devices(config.devices) if config.devices else []


def _output_words() -> list[str]:
    """Return how much a process prints: errors, and what --verbose and --debug ask for."""
    asked = [word for word in output_words() if word in ("--verbose", "--debug")]
    return asked or ["--quiet"]


def _following(store: str, names: set[str], bar: "tqdm[None]") -> Callable[[], None]:
    """Return what brings the bar up to the processes' reports, where a look is due.

    It raises nothing that the store or the terminal does: a bar must not end the work.
    """
    began = looked = time.time()

    def look() -> None:
        nonlocal looked
        if bar.disable or time.time() - looked < WRITE_EVERY:
            return
        looked = time.time()
        with contextlib.suppress(MilanError, OSError):  # the processes will say so
            reports = read_reports(store, names)
            done = sum(one.images_done for one in reports if one.heard_at >= int(began))
            bar.update(max(0, done - bar.n))

    return look
