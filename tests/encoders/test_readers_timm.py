"""A trained encoder as a plain model of timm: it gives what our own face of it gives."""

from pathlib import Path

import pytest
import torch

from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.encoders.readers import load_timm_model
from milan_pipeline.errors import MissingDataError
from tests.support.cli import run_cli


def test_it_gives_the_features_that_probe_scores(
    image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_cli(
        "pretrain", "--images", image_shards, "--targets", target_shards, "--out", run, "--student",
        "vit_tiny_patch16_224", "--patch-size", 8, "--width", 32, "--depth", 1, "--heads", 2,
        "--decoder-width", 32, "--decoder-depth", 1, "--decoder-heads", 2, "--max-steps", 1,
        "--workers", 0,
    )  # fmt: skip
    model, mean, std = load_timm_model(str(run))
    assert not model.training
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    statistics = [torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std)]
    with torch.no_grad():
        tokens = model.forward_features((views / 255 - statistics[0]) / statistics[1])
    wanted = load_encoder(str(run)).features(views)
    assert torch.allclose(tokens[:, 0], wanted, atol=1e-6)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="does not exist"):
        load_timm_model(str(tmp_path))
