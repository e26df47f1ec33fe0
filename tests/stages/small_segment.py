"""The command `segment` on a dozen painted images, with an encoder that trains in a second."""

from pathlib import Path

from tests.conftest import run_cli
from tests.stages.small_finetune import record, rows

TINY_VIT = ("--encoder", "timm:test_vit", "--image-size", 32)
SHORT = (
    "--classes", 3, "--reduce-zero-label", "--channels", 8, "--workers", 0, "--batch-size", 4,
    "--steps", 9, "--eval-every", 3, "--base-lr", 0.01, "--layer-decay", 1, "--log-every", 1,
)  # fmt: skip

__all__ = ["SHORT", "TINY_VIT", "outcome", "record", "rows", "segment"]


def segment(
    train: Path, val: Path, out: Path, *more: object, options=(*TINY_VIT, *SHORT), code=0
) -> None:
    words = ("--train", train, "--val", val, "--out", out)
    run_cli("segment", *words, *options, *more, code=code)


def outcome(run: Path) -> dict[str, bytes]:
    """What must be the same however often a run was stopped."""
    names = ("segmenter.safetensors", "best.safetensors", "best.json", "evaluations.jsonl")
    return {name: (run / name).read_bytes() for name in (*names, "examples.png")}
