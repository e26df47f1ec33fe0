"""The command `segment` on a dozen painted images, with an encoder that trains in a second.

What the processes of a segmentation of several processes do.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.segment.run import train
from milan_pipeline.stages.shared.training_options import Process
from tests.support.cli import run_cli
from tests.support.disturbances import at_step, before_modules

VIT: dict[str, Any] = {
    "model_name": "vit_tiny_patch16_224", "depth": 4, "embed_dim": 16, "num_heads": 2,
    "img_size": 32, "patch_size": 8, "num_classes": 0, "global_pool": "token",
}  # fmt: skip
TINY_VIT = ("--encoder", "timm:test_vit", "--image-size", 32)
SHORT = (
    "--classes", 3, "--reduce-zero-label", "--channels", 8, "--workers", 0, "--batch-size", 4,
    "--steps", 9, "--eval-every", 3, "--base-lr", 0.01, "--layer-decay", 1, "--log-every", 1,
)  # fmt: skip


def segment(
    train: Path, val: Path, out: Path, *more: object, options=(*TINY_VIT, *SHORT), code=0
) -> None:
    words = ("--train", train, "--val", val, "--out", out)
    run_cli("segment", *words, *options, *more, code=code)


def outcome(run: Path) -> dict[str, bytes]:
    """What must be the same however often a run was stopped."""
    names = ("segmenter.safetensors", "best.safetensors", "best.json", "evaluations.jsonl")
    return {name: (run / name).read_bytes() for name in (*names, "examples.png")}


def segment_in_world(world, options, breaks):
    """Train a run, breaking off and beginning again.

    Args:
        world: the processes.
        options: of `Segment`.
        breaks: for each run that breaks off, before which change of the weights; see `at_step`.

    Returns:
        The buffers of this process's norms, in the order of their first use, as lists.
    """
    for number in (*breaks, None):
        norms: dict[nn.Module, None] = {}

        def note(module: nn.Module, _: object, norms: dict[nn.Module, None] = norms) -> None:
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                norms[module] = None

        with stop_request() as stop, before_modules(note), at_step(number or 0, lambda: 1 / 0):
            process = Process(
                device=torch.device("cpu"), world=world, stop=stop, prepared=lambda: None
            )
            with contextlib.suppress(ZeroDivisionError):
                train(Segment(**options), process)
    return [{name: value.tolist() for name, value in module.named_buffers()} for module in norms]
