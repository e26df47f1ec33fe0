"""The best weights on some images are kept while the run is scored on others, and come back."""

import torch
from safetensors.torch import load

from milan_pipeline.models.weight_files import put_weights
from milan_pipeline.storage.checksums import read_checked
from milan_pipeline.training.best_weights import take_up_best
from milan_pipeline.training.evaluations import Evaluations

OLD, NEW = "0123456789", "abcdefabcdef"


def score(run, step, top1, val):
    """Do what an evaluation does; the weights are the number of their step."""
    evaluations = Evaluations(run, key="top1", val=val)
    take_up_best(run, evaluations)

    def keep_best():
        put_weights(run, "best", {"step": torch.tensor(step)}, {"of": val})

    evaluations.add(step, {"top1": top1}, keep_best)


def best(run, name="best"):
    return int(load(read_checked(str(run / f"{name}.safetensors")))["step"])


def test_other_images_to_score_on_leave_the_best_weights_there(tmp_path):
    score(tmp_path, 10, 80.0, OLD)
    score(tmp_path, 20, 70.0, OLD)
    score(tmp_path, 20, 60.0, NEW)
    assert (best(tmp_path), best(tmp_path, "best-01234567")) == (20, 10)
    assert (tmp_path / "best-01234567.json").exists()
    for _ in range(2):  # the images of old, with nothing new to score, and once more
        take_up_best(tmp_path, Evaluations(tmp_path, key="top1", val=OLD))
        assert (best(tmp_path), best(tmp_path, "best-abcdefab")) == (10, 20)
    assert not (tmp_path / "best-01234567.safetensors").exists()
    score(tmp_path, 30, 90.0, NEW)
    assert (best(tmp_path), best(tmp_path, "best-01234567")) == (30, 10)


def test_a_kill_between_weights_and_row_loses_no_best_weights(tmp_path):
    score(tmp_path, 10, 80.0, OLD)
    evaluations = Evaluations(tmp_path, key="top1", val=NEW)
    take_up_best(tmp_path, evaluations)
    put_weights(tmp_path, "best", {"step": torch.tensor(20)}, {})
    score(tmp_path, 20, 60.0, NEW)
    assert (best(tmp_path), best(tmp_path, "best-01234567")) == (20, 10)


def test_a_rename_that_was_cut_short_is_done_when_it_is_called_again(tmp_path):
    score(tmp_path, 10, 80.0, OLD)
    (tmp_path / "best.safetensors").replace(tmp_path / "best-01234567.safetensors")
    score(tmp_path, 20, 60.0, NEW)
    assert (best(tmp_path), best(tmp_path, "best-01234567")) == (20, 10)


def test_folders_of_equally_many_images_have_best_weights_of_their_own(tmp_path):
    """Folders have no hash: their fingerprints begin with the number of images."""
    first, second = (f"8 images of 10175 bytes (names {name})" for name in ("ab12", "cd34"))
    score(tmp_path, 10, 80.0, first)
    for step, val in ((20, second), (20, first)):
        score(tmp_path, step, 60.0, val)
    assert best(tmp_path) == 10
    (other,) = tmp_path.glob("best-*.safetensors")
    assert (best(tmp_path, other.stem), " " in other.name) == (20, False)


def test_best_weights_on_other_images_keep_their_row_where_steps_are_trained_again(tmp_path):
    score(tmp_path, 10, 70.0, OLD)
    score(tmp_path, 20, 80.0, OLD)
    Evaluations(tmp_path, key="top1", val=NEW).forget_after(10)
    score(tmp_path, 20, 60.0, NEW)
    old = Evaluations(tmp_path, key="top1", val=OLD)
    take_up_best(tmp_path, old)
    assert old.best() == {"step": 20, "top1": 80.0, "val": OLD}
    assert best(tmp_path) == 20
