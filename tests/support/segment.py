"""The command `segment` on a dozen painted images, with an encoder that trains in a second.

What the processes of a segmentation of several processes do.
"""

from pathlib import Path
from typing import Any

import torch

from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.evaluate.segmentation.task import Segmentation
from stages.segment.command import Segment
from stages.segment.run import train
from stages.shared.training_options import Process
from tests.support.cli import run_cli

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


class Breaking(Segmentation):
    """Segmentation that fails at some steps, once at each."""

    breaks: tuple[int, ...] = ()
    last: "Breaking | None" = None

    def loss(self, replica, data, part, step):
        Breaking.last = self
        if step in Breaking.breaks:
            Breaking.breaks = tuple(set(Breaking.breaks) - {step})
            raise ZeroDivisionError
        return super().loss(replica, data, part, step)


def segment_in_world(world, options, breaks):
    """Train a run, breaking off at some steps and beginning again.

    Args:
        world: the processes.
        options: of `Segment`.
        breaks: steps at which every process fails once.

    Returns:
        The model's buffers as this process's last evaluation has seen them, as lists.
    """
    Breaking.breaks = breaks
    train.__globals__["Segmentation"] = Breaking
    for _ in range(len(breaks) + 1):
        with stop_request() as stop:
            try:
                process = Process(
                    device=torch.device("cpu"), world=world, stop=stop, prepared=lambda: None
                )
                train(Segment(**options), process)
            except ZeroDivisionError:
                continue
    assert Breaking.last is not None
    return {name: value.tolist() for name, value in Breaking.last.model.named_buffers()}
