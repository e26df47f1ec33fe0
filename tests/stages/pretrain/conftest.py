"""The shards that `pretrain` learns from, and an undisturbed run on them."""

from pathlib import Path

import pytest

from tests.support.pretrain import pretrain


@pytest.fixture(scope="session")
def shards(image_shards: Path, target_shards: Path) -> tuple[Path, Path]:
    """The folders of image and target shards."""
    return image_shards, target_shards


@pytest.fixture(scope="session")
def whole(shards: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of 12 steps."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(*shards, run)
    return run
