"""What `--targets`, `--target-weight` and `--prior-from` may say."""

import json
from pathlib import Path

import pytest
import torch

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.plan import plan
from milan_pipeline.stages.pretrain.teachers import (
    target_folders,
    target_weights,
    warn_of_lost_lengths,
    warn_of_unused_views,
)
from tests.support.second_teacher import write_second_teacher

TWO = ("dino=b", "clip=a")


def test_folders_by_name_in_the_order_given():
    assert list(target_folders(TWO).items()) == [("dino", "b"), ("clip", "a")]
    assert target_folders(("one",)) == {"": "one"}
    assert target_folders(("clip=s3://bucket/x=1",)) == {"clip": "s3://bucket/x=1"}
    assert target_folders(("./split=train",)) == {"": "./split=train"}
    assert target_folders(("s3://bucket/split=train",)) == {"": "s3://bucket/split=train"}


def test_a_folder_that_looks_like_a_name_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "split=train").mkdir()
    with pytest.raises(ConfigError, match=r"if split=train is the folder, give ./split=train"):
        target_folders(("split=train",))
    (tmp_path / "train").mkdir()
    assert target_folders(("split=train",)) == {"split": "train"}


def test_lengths_that_a_codec_lost_are_told_of(capsys):
    warn_of_lost_lengths({"a": "float16", "b": "int8"})
    assert capsys.readouterr().err == ""
    warn_of_lost_lengths({"a": "float16", "b": "rotation", "c": "joint"})
    assert "the codec of --targets b and c keeps directions alone" in capsys.readouterr().err


def test_views_that_another_teacher_lacks_are_told_of(capsys):
    warn_of_unused_views({"clip": 4, "dino": 4}, 4)
    assert capsys.readouterr().err == ""
    warn_of_unused_views({"clip": 4, "dino": 1}, 1)
    assert "of 4 views of clip only 1 are used, since dino has no more" in capsys.readouterr().err


def test_weights_by_name():
    assert target_weights(("dino=0.5",), ["dino", "clip"]) == {"clip": 1.0, "dino": 0.5}
    assert target_weights((), ["dino", "clip"]) == target_weights(("dino=1",), ["dino", "clip"])
    assert list(target_weights(("dino=2", "clip=1"), ["dino", "clip"])) == ["clip", "dino"]


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("--targets b has no name", {"targets": ("clip=a", "b")}),
        ("--targets has the name clip twice", {"targets": ("clip=a", "clip=b")}),
        ("names no folder", {"targets": ("clip=", "dino=b")}),
        ("--target-weight vit=1 weighs no teacher", {"target_weight": ("vit=1",)}),
        ("--target-weight dino=x has no number", {"target_weight": ("dino=x",)}),
        ("--target-weight dino=0 is not above 0", {"target_weight": ("dino=0",)}),
        ("--target-weight dino=inf is not above 0 and finite", {"target_weight": ("dino=inf",)}),
        (r"'a b' has not only letters", {"targets": ("a b=x", "dino=b")}),
        ("--target-weight dino=nan is not above 0", {"target_weight": ("dino=nan",)}),
        ("--target-weight has dino twice", {"target_weight": ("dino=1", "dino=2")}),
        ("--target-weight clip=2 weighs", {"targets": ("clip=a",), "target_weight": ("clip=2",)}),
        ("--prior-from vit chooses no teacher", {"prior_from": "vit"}),
        ("--prior-from clip chooses", {"targets": ("a",), "prior_from": "clip"}),
        ("is for --masking semantic and not random", {"prior_from": "clip", "masking": "random"}),
        ("--target-norm none does not change --loss cosine", {"target_norm": "none"}),
    ],
)
def test_what_does_not_fit_is_refused(said, options):
    with pytest.raises(ConfigError, match=said):
        Pretrain(images="i", out="o", **({"targets": TWO} | options))


@pytest.fixture
def planned(image_shards: Path, target_shards: Path, tmp_path: Path):
    """Plans a run of two teachers into one folder."""
    second = write_second_teacher(target_shards, tmp_path / "second")

    def plan_of(names=("clip", "dino"), **options):
        folders = (target_shards, second)
        targets = tuple(f"{name}={at}" for name, at in zip(names, folders, strict=True))
        words = {"images": str(image_shards), "targets": targets, "out": str(tmp_path / "run")}
        return plan(Pretrain(**(words | options)), torch.device("cpu"))

    return plan_of


def test_a_run_keeps_the_prior_it_began_with(planned):
    began = planned(prior_from="dino")
    began.record.begin()
    assert planned().config.prior_from == "dino"
    assert not planned(target_weight=("dino=1",)).is_done  # the default, so it is the same run


@pytest.mark.parametrize("written", [(), ("dino=1",), ("clip=1.0", "dino=1.0"), ("dino=.5",)])
def test_a_run_goes_on_with_the_weights_that_an_older_version_recorded(written, planned, tmp_path):
    planned().record.begin()
    place = tmp_path / "run" / "config.json"
    known = json.loads(place.read_text())
    known["content"]["target_weight"] = written
    del known["sha256"]
    place.write_text(json.dumps(known | {"sha256": content_hash(known)}))
    now = planned(target_weight=("dino=0.5",) if written == ("dino=.5",) else ())
    assert now.record.previous_state() is not None
    with pytest.raises(MismatchError, match="target_weight is"):
        planned(target_weight=("dino=3",)).record.previous_state()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"masking": "random"}, "masking is 'semantic' there and 'random' here"),
        ({"names": ("sig", "dino")}, "targets.clip"),
    ],
)
def test_another_masking_or_other_teachers_are_another_run(options, said, planned):
    planned().record.begin()
    with pytest.raises(MismatchError, match=said):
        _ = planned(**options).is_done
