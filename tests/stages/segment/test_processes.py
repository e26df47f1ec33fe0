"""`segment` in two processes: BatchNorm's statistics are the first one's; crashes change no bit."""

import pytest

from tests.support.pictures import write_ade_tree
from tests.support.processes import run_world
from tests.support.segment import outcome, segment_in_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("ade")
    return write_ade_tree(root, {"training": 12, "validation": 3}) / "images"


def run(images, out, breaks=()):
    options = {
        "encoder": "timm:test_vit", "image_size": 32, "classes": 3, "channels": 8,
        "train": str(images / "training"), "val": str(images / "validation"), "out": str(out),
        "batch_size": 8, "micro_batch": 2, "steps": 6, "eval_every": 3, "base_lr": 0.02,
        "checkpoint_every": 2, "workers": 0,
    }  # fmt: skip
    results = run_world(2, segment_in_world, options, breaks)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def test_two_processes_agree_and_a_crash_changes_no_bit(images, tmp_path):
    first, second = run(images, tmp_path / "whole")
    assert any("running_mean" in buffers for buffers in first)
    assert first == second
    run(images, tmp_path / "broken", breaks=(4, 4))  # in steps 4 and, from step 2's checkpoint, 6
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")
