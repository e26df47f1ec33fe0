"""The run folder: what pretrain writes, resumes and refuses."""

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file

from tests.conftest import run_cli

TINY_STUDENT = (
    "--student", "vit_tiny_patch16_224", "--patch-size", 8, "--width", 32, "--depth", 2,
    "--heads", 2, "--decoder-width", 32, "--decoder-depth", 1, "--decoder-heads", 2,
    "--workers", 0, "--batch-size", 8, "--epochs", 4,
)  # fmt: skip


def pretrain(images: Path, targets: Path, out: Path, *more: object, code: int = 0) -> None:
    run_cli(
        "pretrain", "--images", images, "--targets", targets, "--out", out, *TINY_STUDENT, *more,
        code=code,
    )  # fmt: skip


def test_run_folder_is_complete(image_shards: Path, target_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(image_shards, target_shards, run)
    description = json.loads((run / "encoder.json").read_text())
    model = timm.create_model(**description["timm"])
    model.load_state_dict(load_file(run / "encoder.safetensors"), strict=True)
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    assert json.loads((run / "state.json").read_text())["state"] == "done"


def test_second_run_has_nothing_to_do(
    image_shards: Path, target_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(image_shards, target_shards, tmp_path / "run", "--max-steps", 2)
    pretrain(image_shards, target_shards, tmp_path / "run", "--max-steps", 2)
    assert "nothing to do" in capsys.readouterr().out
