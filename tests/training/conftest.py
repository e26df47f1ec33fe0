"""A small run of the trainer, and what it reads."""

import pytest

from tests.support.runs import Run, open_data


@pytest.fixture(scope="package")
def data(image_shards, target_shards):
    return open_data(image_shards, target_shards)


@pytest.fixture(scope="package")
def whole(data, tmp_path_factory):
    """An undisturbed run."""
    run = Run(data, tmp_path_factory.mktemp("whole"))
    run.train()
    return run


@pytest.fixture
def run(data, tmp_path):
    return Run(data, tmp_path / "run")
