"""Checkpoints are written behind training's back, one at a time, and no failure is lost."""

import threading

import pytest
import torch

from milan_pipeline.errors import StorageError
from milan_pipeline.training.checkpoint_io import CheckpointWriter
from milan_pipeline.training.checkpoints import MODEL, OPTIMISER, newest_checkpoint


def snapshot(value):
    return {MODEL: {"w": torch.full((3,), value)}, OPTIMISER: {"w:step": torch.tensor(value)}}


def full(*_, **__):
    raise StorageError("the disk is full")


def test_what_is_saved_is_there_when_the_block_ends(tmp_path):
    with CheckpointWriter(tmp_path, keep=1) as writer:
        writer.save(1, snapshot(1.0))
        writer.save(2, snapshot(2.0))
    assert newest_checkpoint(tmp_path) == (2, tmp_path / "checkpoints/step-00000002")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_training_goes_on_while_one_is_written_and_the_next_waits_for_it(tmp_path):
    may_end, written = threading.Event(), []

    def slow(_run, step, _snapshot, *, keep):
        assert may_end.wait(60)
        written.append((step, keep, threading.current_thread() is threading.main_thread()))

    with CheckpointWriter(tmp_path, keep=3, write=slow) as writer:
        writer.save(1, snapshot(1.0))
        assert written == []
        may_end.set()
        writer.save(2, snapshot(2.0))
        assert written[0] == (1, 3, False)
        writer.wait()
        assert [step for step, *_ in written] == [1, 2]


def test_a_failure_is_raised_by_the_next_save_or_wait_or_the_end(tmp_path):
    with CheckpointWriter(tmp_path, keep=1, write=full) as writer:
        writer.save(1, snapshot(1.0))
        with pytest.raises(StorageError, match="the disk is full"):
            writer.save(2, snapshot(2.0))
        writer.save(3, snapshot(3.0))
        with pytest.raises(StorageError, match="the disk is full"):
            writer.wait()
    with (
        pytest.raises(StorageError, match="the disk is full"),
        CheckpointWriter(tmp_path, keep=1, write=full) as writer,
    ):
        writer.save(1, snapshot(1.0))


def test_an_error_of_training_itself_comes_first(tmp_path):
    def train():
        with CheckpointWriter(tmp_path, keep=1, write=full) as writer:
            writer.save(1, snapshot(1.0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
