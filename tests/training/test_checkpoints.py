"""A checkpoint is whole or not at all; what is loaded is what was saved, bit for bit."""

import errno
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import nn

from milan_pipeline.errors import DataError, StorageError
from milan_pipeline.training.checkpoint_io import load_checkpoint
from milan_pipeline.training.checkpoints import (
    AVERAGE,
    HASHES,
    MODEL,
    OPTIMISER,
    checkpoint_folder,
    newest_checkpoint,
    verify_checkpoint,
)
from milan_pipeline.training.optim import make_optimiser
from tests.support.runs import model_and_optimiser, save_checkpoint, saved, take_steps


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_is_loaded_is_what_was_saved(tmp_path):
    model, optimiser = model_and_optimiser()
    take_steps(model, optimiser, 3)
    folder = save_checkpoint(tmp_path, 3, model, optimiser, keep=1)
    other, other_optimiser = model_and_optimiser(seed=1)
    take_steps(other, other_optimiser, 1)
    load_checkpoint(folder, other, other_optimiser)
    assert folder.name == "step-00000003"
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        left, right = optimiser.state[ours], other_optimiser.state[theirs]
        assert left.keys() == right.keys()
        assert all(torch.equal(left[field], right[field]) for field in left)
        assert bool(left) == ours.requires_grad


def test_no_pickle_is_written(tmp_path):
    saved(tmp_path, [1])
    folder = tmp_path / "checkpoints/step-00000001"
    assert sorted(path.name for path in folder.iterdir()) == sorted([MODEL, OPTIMISER, HASHES])
    assert json.loads((folder / HASHES).read_text()).keys() == {MODEL, OPTIMISER}


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def removed(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, flipped, removed])
@pytest.mark.parametrize("name", [MODEL, OPTIMISER, HASHES])
def test_a_torn_checkpoint_is_passed_over_and_named(tmp_path, name, damage, caplog):
    saved(tmp_path, [2, 4])
    newest = tmp_path / "checkpoints/step-00000004"
    assert newest_checkpoint(tmp_path) == (4, newest)
    damage(newest / name)
    assert newest_checkpoint(tmp_path) == (2, tmp_path / "checkpoints/step-00000002")
    assert "step-00000004" in caplog.text
    with pytest.raises(DataError, match=r"step-00000004.*delete"):
        verify_checkpoint(newest)
    with pytest.raises(DataError, match="step-00000004"):
        load_checkpoint(newest, *model_and_optimiser())


def test_where_all_are_torn_nothing_starts_anew_unasked(tmp_path):
    saved(tmp_path, [2, 4])
    truncated(tmp_path / "checkpoints/step-00000002" / MODEL)
    removed(tmp_path / "checkpoints/step-00000004" / HASHES)
    with pytest.raises(
        DataError, match=r"step-00000004, step-00000002 are torn.*; delete .*to start anew"
    ):
        newest_checkpoint(tmp_path)


@pytest.fixture
def denied(monkeypatch):
    """Have files below a folder be unreadable, for root, too."""

    def deny(folder):
        class Denied(io.FileIO):
            def readinto(self, buffer):
                if Path(self.name).is_relative_to(folder):
                    raise PermissionError(errno.EACCES, "Permission denied")
                return super().readinto(buffer)

        monkeypatch.setattr(io, "FileIO", Denied)

    return deny


def test_an_unreadable_checkpoint_is_not_passed_over_as_torn(tmp_path, denied):
    """It may be sound; to go on from one before it would train those steps again."""
    saved(tmp_path, [2, 4])
    newest = tmp_path / "checkpoints/step-00000004"
    denied(newest)
    for use in (newest_checkpoint, lambda _: verify_checkpoint(newest)):
        with pytest.raises(
            StorageError, match=r"step-00000004.*cannot be read \(Permission denied"
        ):
            use(tmp_path)


def test_checkpoints_that_cannot_be_listed_are_not_taken_for_none(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    saved(tmp_path, [2])
    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"checkpoints cannot be listed \(Permission denied\)"):
        newest_checkpoint(tmp_path)


def test_an_unreadable_checkpoint_is_kept_beside_the_newest(tmp_path, monkeypatch, caplog):
    model, optimiser = saved(tmp_path, [2, 4])

    cat_file = LocalFileSystem.cat_file

    def deny(self, path, *at, **range_of):
        if "step-00000004/optimiser" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return cat_file(self, path, *at, **range_of)

    monkeypatch.setattr(LocalFileSystem, "cat_file", deny)
    save_checkpoint(tmp_path, 6, model, optimiser, keep=1)
    assert names(tmp_path) == ["step-00000004", "step-00000006"]
    assert "step-00000004 is kept: " in caplog.text
    assert "optimiser.safetensors cannot be read (Permission denied)" in caplog.text


def test_without_a_run_there_is_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is None


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, [2, 4, 6, 8], keep=2)
    assert names(tmp_path) == ["step-00000006", "step-00000008"]


def test_steps_are_ordered_as_numbers(tmp_path):
    saved(tmp_path, [99_999_999, 100_000_000], keep=1)
    assert names(tmp_path) == ["step-100000000"]


def test_a_torn_later_checkpoint_never_costs_a_whole_one(tmp_path):
    model, optimiser = saved(tmp_path, [4, 6])
    flipped(tmp_path / "checkpoints/step-00000006" / MODEL)
    save_checkpoint(tmp_path, 5, model, optimiser, keep=1)
    assert names(tmp_path) == ["step-00000005"]
    assert newest_checkpoint(tmp_path) is not None


def test_a_torn_checkpoint_of_the_same_step_is_replaced(tmp_path):
    model, optimiser = saved(tmp_path, [4])
    truncated(tmp_path / "checkpoints/step-00000004" / OPTIMISER)
    save_checkpoint(tmp_path, 4, model, optimiser, keep=1)
    verify_checkpoint(tmp_path / "checkpoints/step-00000004")


def test_what_a_kill_left_half_written_is_removed_and_what_is_foreign_left_alone(tmp_path):
    model, optimiser = saved(tmp_path, [4])
    (tmp_path / "checkpoints/step-best").mkdir()
    (tmp_path / "checkpoints/.step-00000006.abc.tmp").mkdir()
    assert newest_checkpoint(tmp_path) == (4, tmp_path / "checkpoints/step-00000004")
    save_checkpoint(tmp_path, 6, model, optimiser, keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000006", "step-best"]


def test_a_full_disk_is_a_clear_error_and_harms_nothing(tmp_path, monkeypatch):
    model, optimiser = saved(tmp_path, [4])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(StorageError, match=r"student\.safetensors cannot be written \(No space"):
        save_checkpoint(tmp_path, 6, model, optimiser, keep=1)
    assert newest_checkpoint(tmp_path) == (4, tmp_path / "checkpoints/step-00000004")


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/step-00000006"])
def test_a_file_in_the_way_is_named(tmp_path, name):
    model, optimiser = model_and_optimiser()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(StorageError, match=rf"step-00000006 cannot be written .*{name}.*run the"):
        save_checkpoint(tmp_path, 6, model, optimiser, keep=1)


def test_an_old_checkpoint_that_cannot_be_deleted_is_named_and_stays(tmp_path, monkeypatch, caplog):
    model, optimiser = saved(tmp_path, [4])

    def refuse(_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    save_checkpoint(tmp_path, 6, model, optimiser, keep=1)
    assert names(tmp_path) == ["step-00000004", "step-00000006"]
    (warning,) = caplog.messages
    assert "step-00000004 cannot be deleted (Device or resource busy)" in warning


@pytest.mark.parametrize("damage", [truncated, removed])
@pytest.mark.parametrize("name", [MODEL, OPTIMISER, HASHES])
def test_a_torn_checkpoint_does_not_count_among_those_to_keep(tmp_path, name, damage):
    model, optimiser = saved(tmp_path, [2, 4])
    damage(tmp_path / "checkpoints/step-00000004" / name)
    save_checkpoint(tmp_path, 5, model, optimiser, keep=2)
    assert names(tmp_path) == ["step-00000002", "step-00000005"]


def test_nothing_that_was_loaded_stays_mapped_from_its_file(tmp_path):
    saved(tmp_path, [4])
    model, optimiser = model_and_optimiser(seed=1)
    load_checkpoint(tmp_path / "checkpoints/step-00000004", model, optimiser)
    assert optimiser.state
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda hashes: hashes | {"../../config.json": "0" * 64},
        lambda hashes: {name: hashes[name] for name in hashes if name != MODEL},
        lambda hashes: dict.fromkeys(hashes, 1),
        lambda hashes: [*hashes],
    ],
)
def test_a_list_of_hashes_of_other_files_is_refused(tmp_path, change):
    saved(tmp_path, [3])
    folder = checkpoint_folder(tmp_path, 3)
    hashes = change(json.loads((folder / HASHES).read_text()))
    (folder / HASHES).write_text(json.dumps(hashes))
    with pytest.raises(DataError, match="step-00000003 is torn"):
        verify_checkpoint(folder)


def test_an_average_without_a_hash_is_refused(tmp_path):
    saved(tmp_path, [3])
    folder = checkpoint_folder(tmp_path, 3)
    shutil.copy(folder / MODEL, folder / AVERAGE)
    with pytest.raises(DataError, match="step-00000003 is torn"):
        verify_checkpoint(folder)


def test_what_is_no_checkpoint_under_its_right_hash_is_named(tmp_path):
    saved(tmp_path, [3])
    folder = checkpoint_folder(tmp_path, 3)
    (folder / MODEL).write_bytes(b"12345678 no tensors")
    hashes = json.loads((folder / HASHES).read_text())
    hashes[MODEL] = hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
    (folder / HASHES).write_text(json.dumps(hashes))
    with pytest.raises(DataError, match=f"{MODEL} holds no tensors"):
        load_checkpoint(folder, *model_and_optimiser())


def test_a_checkpoint_of_another_model_is_refused_in_a_line(tmp_path):
    saved(tmp_path, [3])
    model = nn.Linear(5, 8)
    with pytest.raises(DataError, match="step-00000003 does not fit what is trained") as refused:
        load_checkpoint(
            checkpoint_folder(tmp_path, 3), model, make_optimiser(model, weight_decay=0.05)
        )
    assert "\n" not in str(refused.value)
