"""One student learns from two teachers: the same views, a head and a loss of each."""

import json
from pathlib import Path

import pytest
import torch

from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.stream import batches
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.models.student import in_grid_order
from milan_pipeline.pretraining.examples import ToExamples
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.provenance.identity import identities_of
from tests.support.cli import run_cli
from tests.support.runs import Run, require_same_end, require_same_weights, student_for
from tests.support.second_teacher import WIDTH, write_second_teacher


@pytest.fixture(scope="module")
def folders(image_shards: Path, target_shards: Path, tmp_path_factory: pytest.TempPathFactory):
    second = write_second_teacher(target_shards, tmp_path_factory.mktemp("second"))
    return str(image_shards), {"clip": str(target_shards), "dino": str(second)}


def opened(images, targets, **changes):
    order = OrderChoice(batch=8, lanes=4, block=5, seed=0)
    return open_run_data(images, targets, views=None, on_missing="error", order=order, **changes)


@pytest.fixture(scope="module")
def data(folders):
    return opened(*folders)


def test_one_teacher_under_two_names_is_refused(folders):
    images, targets = folders
    with pytest.raises(ConfigError, match=r"--targets a=.* and b=.* are the same targets; give"):
        opened(images, {"a": targets["clip"], "b": targets["clip"]})


def first_batch(data):
    examples = ToExamples(data.examples(student_for(data), mask_ratio=0.75))
    (batch,) = batches(data.samples, data.order, examples, steps=range(1), workers=0)
    return batch


def test_a_batch_has_the_targets_of_each_teacher(data):
    assert [teacher.name for teacher in data.teachers] == ["clip", "dino"]
    batch = first_batch(data)
    clip, dino = (in_grid_order(each, batch.kept_BK, batch.masked_BM) for each in batch.codes)
    assert dino.shape == (8, 17, WIDTH)
    assert torch.equal(dino, 3 - clip[..., :WIDTH])


@pytest.mark.parametrize("codec", ["int8", "joint:bytes=4"])
def test_each_teachers_targets_are_decoded_by_its_own_codec(codec, folders, target_store, tmp_path):
    images, targets = folders
    run_cli("pack-targets", "--targets", target_store, "--out", tmp_path, "--codec", codec)
    data = opened(images, targets | {"clip": str(tmp_path)})
    batch, alone = first_batch(data), first_batch(opened(images, {"": str(tmp_path)}))
    (decoder,) = opened(images, {"": str(tmp_path)}).targets().values()
    found = [
        decoder.decode(codes, scales)
        for decoder, codes, scales in zip(
            data.targets().values(), batch.codes, batch.scales, strict=True
        )
    ]
    assert batch.keys == alone.keys
    assert torch.equal(found[0], decoder.decode(alone.codes[0], alone.scales[0]))
    other = first_batch(opened(*folders))  # whose masks may differ, as a codec has its own prior
    ours, theirs = (
        in_grid_order(codes, of.kept_BK, of.masked_BM)
        for codes, of in ((found[1], batch), (other.codes[1].float(), other))
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["clip", "dino"])
def test_masks_are_drawn_by_the_prior_of_the_teacher_asked_for(name, folders):
    data = opened(*folders, prior_from=name)
    batch = first_batch(data)
    alone = first_batch(opened(folders[0], {"": folders[1][name]}))
    assert batch.keys == alone.keys
    assert torch.equal(batch.kept_BK, alone.kept_BK)
    (other,) = {"clip", "dino"} - {name}
    assert not torch.equal(batch.kept_BK, first_batch(opened(*folders, prior_from=other)).kept_BK)


def test_the_first_teacher_given_lends_its_prior_where_none_is_asked_for(folders):
    images, targets = folders
    turned = opened(images, dict(reversed(targets.items())))
    assert turned.prior_from == "dino"
    assert [teacher.name for teacher in turned.teachers] == ["clip", "dino"]


# ---- what may not differ


def test_teachers_of_other_views_are_refused_with_the_command_that_helps(folders, tmp_path):
    images, targets = folders
    other = write_second_teacher(Path(targets["clip"]), tmp_path, view_policy={"seed": 7})
    said = r"clip and dino .* view_policy\.seed is 0 in .* and 7 in .*for dino with --views-from .*"
    with pytest.raises(MismatchError, match=said):
        opened(images, targets | {"dino": str(other)})


def test_teachers_of_another_grid_are_refused(folders, tmp_path):
    images, targets = folders
    other = write_second_teacher(Path(targets["clip"]), tmp_path, teacher={"grid": [2, 8]})
    with pytest.raises(MismatchError, match=r"grid of 4x4 .* dino one of 2x8;.*--grid 4"):
        opened(images, targets | {"dino": str(other)})


def test_a_sample_whose_boxes_differ_is_refused_by_name(folders, tmp_path):
    images, targets = folders
    other = write_second_teacher(Path(targets["clip"]), tmp_path, box=[0, 0, 9, 9])
    with pytest.raises(MismatchError, match=r"different views: box is .* and \[0\.0, 0\.0, 9"):
        first_batch(opened(images, targets | {"dino": str(other)}))


# ---- training


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    run = Run(data, tmp_path_factory.mktemp("whole"))
    run.train()
    return run


def test_the_loss_is_the_mean_of_the_teachers_by_their_weights(data, whole, tmp_path):
    weighted = Run(data, tmp_path)
    weighted.train(target_weights={"dino": 3.0})
    for run, weight in ((whole, 1), (weighted, 3)):
        for row in run.log:
            mean = (row["loss/clip"] + weight * row["loss/dino"]) / (1 + weight)
            assert row["loss"] == pytest.approx(mean, rel=1e-6)
    first, last = whole.log[0], whole.log[-1]
    assert all(last[name] < first[name] for name in ("loss/clip", "loss/dino"))
    with pytest.raises(AssertionError):
        require_same_weights(whole, weighted)


def test_small_parts_of_a_batch_give_the_same_losses(data, whole, tmp_path):
    parts = Run(data, tmp_path)
    parts.train(micro_batch=4, total_steps=1)
    for name in ("loss", "loss/clip", "loss/dino"):
        assert parts.log[0][name] == pytest.approx(whole.log[0][name], rel=1e-5)


def test_a_run_that_breaks_goes_on_to_the_same_weights(data, whole, tmp_path):
    run = Run(data, tmp_path)
    run.break_at(6)
    run.train()
    require_same_end(run, whole)
    assert [row["loss/dino"] for row in run.log] == [row["loss/dino"] for row in whole.log]


def test_one_teacher_with_a_name_is_one_without(folders, tmp_path):
    images, targets = folders
    runs = []
    for name in ("", "clip"):
        run = Run(opened(images, {name: targets["clip"]}), tmp_path / f"of-{name}")
        run.train(total_steps=2)
        runs.append(run)
    assert len({tuple(row["loss"] for row in run.log) for run in runs}) == 1
    require_same_weights(*runs)
    assert runs[0].data.inputs == runs[1].data.inputs
    assert not any("loss/" in name for name in runs[1].log[0])


def test_the_record_tells_of_each_teacher(data, folders):
    alone = opened(folders[0], {"": folders[1]["clip"]})
    assert list(alone.inputs) == ["identity_hash", "identity", "pairs"]
    assert identities_of(alone.inputs) == {"": alone.teachers[0].identity}
    stored = json.loads(json.dumps(data.inputs))
    assert identities_of(stored) == {each.name: each.identity for each in data.teachers}
    assert identities_of({"target": "pixels"}) == {}
