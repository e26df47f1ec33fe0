"""What an evaluation has counted is taken up by the same evaluation alone."""

import dataclasses

import pytest
import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.training.partial_scores import NAME, PartialScores
from tests.support.processes import run_world

ROW = {"shard": "a", "key": "b", "reason": "c"}


def ledger_in(folder):
    return RunLedger(folder, "val", images=100, fraction=1)


def partial_in(folder, world=None, **changes):
    usual = PartialScores(folder=folder, step=3, val="v", world=world or World())
    return dataclasses.replace(usual, **changes)


def keep(folder, world=None):
    world, ledger = world or World(), ledger_in(folder)
    ledger.add([ROW])
    partial_in(folder, world).keep(4 + world.rank, torch.tensor([1.0, 2.0]).double(), ledger)


def begin(folder, world=None, **changes):
    ledger, sums = ledger_in(folder), torch.zeros(2, dtype=torch.float64)
    done = partial_in(folder, world, **changes).begin(sums, ledger)
    return done, sums.tolist(), ledger.count


def test_it_goes_on_from_what_was_counted(tmp_path):
    assert begin(tmp_path) == (0, [0.0, 0.0], 0)
    keep(tmp_path)
    assert begin(tmp_path) == (4, [1.0, 2.0], 1)
    partial_in(tmp_path).remove()
    assert begin(tmp_path) == (0, [0.0, 0.0], 0)


@pytest.mark.parametrize("changes", [{"step": 6}, {"val": "mended"}])
def test_another_evaluation_begins_anew(changes, tmp_path):
    keep(tmp_path)
    assert begin(tmp_path, **changes) == (0, [0.0, 0.0], 0)


def test_a_damaged_file_is_passed_over(tmp_path):
    keep(tmp_path)
    (tmp_path / NAME).write_text("{")
    assert begin(tmp_path) == (0, [0.0, 0.0], 0)


def kept_and_begun(world, folder):
    keep(folder, world)
    return begin(folder, world)


def test_processes_go_on_with_their_own_shares_and_the_first_has_the_sums(tmp_path):
    first, second = run_world(2, kept_and_begun, tmp_path)
    assert first == (4, [2.0, 4.0], 1)
    assert second == (5, [0.0, 0.0], 1)
    assert begin(tmp_path) == (0, [0.0, 0.0], 0)  # one process has another share
