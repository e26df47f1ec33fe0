"""The command `pretrain` with a student that trains in a second, and what its run folder says."""

import json
from pathlib import Path

from tests.support.cli import run_cli

TINY_STUDENT = (
    "--student", "vit_tiny_patch16_224", "--patch-size", 8, "--width", 32, "--depth", 2,
    "--heads", 2, "--decoder-width", 32, "--decoder-depth", 1, "--decoder-heads", 2,
)  # fmt: skip
SHORT = ("--workers", 0, "--batch-size", 8, "--epochs", 4)


def pretrain(
    images: Path, targets: Path, out: Path, *more: object, options=(*TINY_STUDENT, *SHORT), code=0
) -> None:
    words = ("--images", images, "--targets", targets, "--out", out)
    run_cli("pretrain", *words, *options, *more, code=code)


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def state(run: Path) -> str:
    return str(json.loads((run / "state.json").read_text())["state"])


def log(run: Path):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def extract_and_pack(images, clip, out, *more):
    words = ("--images", images, "--teacher", f"local-dir:{clip}")
    run_cli("extract-targets", *words, "--out", out / "t.zarr", *more)
    run_cli("pack-targets", "--targets", out / "t.zarr", "--out", out / "targets")
    return out / "targets"
