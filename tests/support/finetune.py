"""The command `finetune` on a dozen pictures, with an encoder that trains in a second."""

import json
from pathlib import Path

from tests.support.cli import run_cli

TINY_VIT = ("--encoder", "timm:test_vit", "--image-size", 32)
SHORT = ("--workers", 0, "--batch-size", 4, "--epochs", 3, "--base-lr", 0.02, "--log-every", 1)


def finetune(
    train: Path, val: Path, out: Path, *more: object, options=(*TINY_VIT, *SHORT), code=0
) -> None:
    words = ("--train", train, "--val", val, "--out", out)
    run_cli("finetune", *words, *options, *more, code=code)


def outcome(run: Path) -> dict[str, bytes]:
    """What must be the same however often a run was stopped."""
    names = ("finetuned.safetensors", "best.safetensors", "best.json", "evaluations.jsonl")
    return {name: (run / name).read_bytes() for name in names}


def rows(run: Path, name: str):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def record(run: Path, name: str = "config.json"):
    return json.loads((run / name).read_text())
