"""What the tests on a real Slurm share: the cluster, images, and what a local run makes of them."""

import pytest

from tests.slurm.chain import environment_of, run_here, write_images, write_recipe
from tests.slurm.one_node import slurm_cluster


@pytest.fixture(scope="package")
def world(tmp_path_factory):
    """Images, a recipe, and in `here` what the stages make of them on this machine."""
    root = tmp_path_factory.mktemp("chain")
    write_images(root)
    run_here(write_recipe(root / "recipe.yaml"), root, root / "here")
    return root


@pytest.fixture(scope="package")
def cluster(tmp_path_factory):
    """The environment in which Slurm's commands find the cluster."""
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment_of(environment)
