"""When a run has ended: its weights are there, or no rerun could write them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save

from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.provenance.run_state import write_state
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.training.ended import has_ended, require_a_beginning, warn_of_lost_best
from milan_pipeline.training.evaluations import Evaluations
from tests.support.runs import saved

EXPORTS = ("finetuned", "best")


class Record:
    def previous_state(self) -> str:
        return "done"


class Run:
    """A run of three steps, whose best weights are those of one of them."""

    def __init__(self, folder: Path, best_step: int) -> None:
        self.folder = folder
        self.evaluations = Evaluations(folder, key="top1", val="v")
        write_state(folder, "done", step=3, total_steps=3)
        for step in (1, 2, 3):
            scores = {"top1": 50.0 if step == best_step else 40.0}
            self.evaluations.add(step, scores, lambda: None)
        for name in EXPORTS:
            (folder / f"{name}.safetensors").write_bytes(save({"w": torch.zeros(3)}))
            (folder / f"{name}.json").write_text('{"mean": [0]}')
        saved(folder, [3])

    def has_ended(self) -> bool:
        return has_ended(cast(Any, Record()), self.folder, 3, EXPORTS, self.evaluations)


def cut(path: Path) -> None:
    """Leave the first half of a file, as a copy that was interrupted does."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("lose", [Path.unlink, cut])
@pytest.mark.parametrize("lost", ["best.json", "best.safetensors"])
@pytest.mark.parametrize("best_step", [2, 3])
def test_best_weights_that_no_rerun_writes_are_not_waited_for(
    lost: str,
    lose: Callable[[Path], None],
    best_step: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = Run(tmp_path, best_step)
    assert run.has_ended()
    warn_of_lost_best(tmp_path, run.evaluations, "finetuned", 3)
    assert not caplog.text
    lose(tmp_path / lost)
    assert run.has_ended() is (best_step == 2)
    warn_of_lost_best(tmp_path, run.evaluations, "finetuned", 3)
    assert (f"lost {lost}, of step 2; restore it, or use finetuned" in caplog.text) is (
        best_step == 2
    )
    (tmp_path / "finetuned.json").unlink()
    assert not run.has_ended()


def test_lost_weights_without_a_checkpoint_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path, best_step=2)
    shutil.rmtree(tmp_path / "checkpoints/step-00000003")
    (tmp_path / "best.json").unlink()
    assert run.has_ended()
    (tmp_path / "finetuned.json").unlink()
    with pytest.raises(MissingDataError, match=r"has lost finetuned\.json, and has no checkpoint"):
        run.has_ended()


def test_a_run_without_its_checkpoints_is_not_trained_anew_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, best_step=2)
    require_a_beginning(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/step-00000003")
    with pytest.raises(MissingDataError, match=r"done after 3 steps, and has no checkpoint.*anew"):
        require_a_beginning(run.folder)
    write_state(tmp_path, "interrupted", step=2, total_steps=3)
    require_a_beginning(tmp_path, leads=False)
    assert not caplog.text
    require_a_beginning(tmp_path)
    assert "has no checkpoint of its 2 steps: it is trained anew" in caplog.text
    caplog.clear()
    (tmp_path / "state.json").unlink()
    require_a_beginning(tmp_path)
    assert not caplog.text


def test_a_torn_checkpoint_is_seen_by_its_length_and_a_damaged_one_when_it_is_loaded(
    tmp_path: Path,
) -> None:
    Run(tmp_path, best_step=2)
    (file,) = tmp_path.glob("checkpoints/*/student.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    require_a_beginning(tmp_path)
    with pytest.raises(DataError, match=r"no checkpoint of .* is whole"):
        newest_checkpoint(tmp_path)
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"no checkpoint of .* is whole"):
        require_a_beginning(tmp_path)
