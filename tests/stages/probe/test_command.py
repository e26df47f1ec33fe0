"""The probe stage on packed shards: scores, its record, and what it refuses."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from milan_pipeline.core.console import Verbosity, output
from milan_pipeline.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    MismatchError,
    MissingDataError,
)
from milan_pipeline.evaluate.intervals import wilson
from milan_pipeline.evaluate.scores_file import Result, write_scores
from milan_pipeline.stages.probe import command as probe
from milan_pipeline.stages.probe.command import Probe
from tests.support.labelled import png, shards


@pytest.fixture
def options(tmp_path):
    return {
        "encoder": "pixels:8",
        "train": shards(tmp_path / "train", 60, seed=1),
        "val": shards(tmp_path / "test", 30, seed=2),
        "out": str(tmp_path / "out"),
        "device": "cpu",
    }


def scores(options):
    return json.loads(open_text(options, "scores.json"))


def open_text(options, name):
    with open(f"{options['out']}/{name}", encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


def test_pixels_tell_colours_apart(options, capsys):
    probe.run(Probe(**options))
    found = scores(options)
    assert list(found["metrics"]) == ["knn@10", "knn@20", "knn@100", "knn@200", "linear"]
    assert all(found["metrics"][name] == 100 for name in ("knn@10", "knn@20", "linear"))
    assert (found["stage"], found["encoder"], found["label"]) == ("probe", "pixels:8", None)
    assert (found["train"], found["test"], found["bad"]) == (60, 30, [])
    answers = np.load(f"{options['out']}/answers.npy", allow_pickle=False)
    assert len(answers) == 30
    assert (answers["knn"] == answers["label"]).all()
    assert (answers["linear"] == answers["label"]).all()
    assert np.bincount(answers["label"]).tolist() == [10, 10, 10]
    images = open_text(options, "images.txt").splitlines()
    assert (len(images), images[0], images[-1]) == (
        30, "images-0.tar/0000", "images-1.tar/0029",
    )  # fmt: skip
    head, row, sure = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == (
        "encoder knn@10 % knn@20 % knn@100 % knn@200 % linear % train test skipped"
    )
    assert row.split()[:3] == ["pixels:8", "100.00", "100.00"]
    assert row.split()[-4:] == ["100.00", "60", "30", "0"]
    assert sure.split()[:3] == ["95%", "interval", "88.6\u2013100.0"]
    (Path(options["out"]) / "scores.json").write_text("{")  # a copy was cut short
    probe.run(Probe(**options))
    assert scores(options) == found
    assert found["intervals"]["linear"] == list(wilson(30, 30))


def test_classes_of_one_set_alone_are_named(options, tmp_path, capsys):
    """The test images have classes 0 to 2; those to learn from lack one of them."""
    kept = [n for n in range(60) if n % 3 != 1]
    options["train"] = shards(tmp_path / "fewer", 60, seed=1, only=kept)
    probe.run(Probe(**options))
    said = capsys.readouterr().err
    assert "no image of class 1 is in --train" in said
    assert "can never be answered rightly" in said


def test_shards_of_one_class_folder_are_refused_before_features_are_made(options, tmp_path):
    options["train"] = shards(tmp_path / "one", 6, seed=1, classes=("images",))
    with pytest.raises(DataError, match="only images of class 0 \\('images'\\)"):
        probe.run(Probe(**options))


def test_a_set_that_is_learnt_and_scored_alike_is_warned_of(options, capsys):
    alike = options | {"val": options["train"]}
    probe.run(Probe(**alike))
    assert "--val has the images of --train" in capsys.readouterr().err
    with output(Verbosity.NORMAL) as document:
        probe.run(Probe(**alike))
    done = capsys.readouterr()
    assert "nothing to do" in done.out
    assert document.value["metrics"] == scores(options)["metrics"]  # for who asks from Python
    assert done.err == ""  # the images were not compared again


def test_options_of_classifiers_that_are_not_asked_for_are_said(options, capsys):
    probe.dry_run(Probe(**options, linear=("official",), linear_epochs=12, sweep_steps=7))
    assert "Warning: --sweep-steps 7 changes nothing without --linear sweep" in (
        said := capsys.readouterr().err
    )
    assert "--linear-epochs" not in said
    probe.dry_run(Probe(**options, linear=("none",), train_views=2))
    assert "--train-views 2 changes nothing without --linear official" in capsys.readouterr().err


def test_an_encoder_that_tells_no_images_apart_is_warned_of(options, tmp_path, monkeypatch, capsys):
    grey = io.BytesIO()
    Image.new("RGB", (8, 8), (128, 128, 128)).save(grey, "PNG")
    monkeypatch.setattr("tests.support.labelled.png", lambda *_: grey.getvalue())
    place = options["train"] = shards(tmp_path / "grey", 6, seed=1)
    probe.run(Probe(**options, linear=("none",)))
    said = capsys.readouterr().err
    assert f"all features of --train {place} are alike" in said
    assert said.count("are alike") == 1


def test_what_is_scored_is_scored_again_where_it_is_lost_or_overwritten(options, tmp_path, capsys):
    probe.run(Probe(**options))
    before, found = open_text(options, "probe.json"), open_text(options, "scores.json")
    content = json.loads(found)["content"]
    assert content["crop_pct"] == 0.875
    assert not {"dense", "memory", "classes"} & set(content)  # as in older versions
    for again in (probe.run, probe.dry_run):
        capsys.readouterr()
        again(Probe(**options, workers=0))
        assert "nothing to do" in capsys.readouterr().out
        with pytest.raises(MismatchError, match=r"k is \[10, 20, 100, 200\] there and \[5\] here"):
            again(Probe(**options, k=(5,)))
        with pytest.raises(MismatchError, match=r"crop_pct is 0.875 there and 1.0 here"):
            again(Probe(**options, crop_pct=1.0))
    assert open_text(options, "probe.json") == before
    (tmp_path / "out/scores.json").unlink()
    probe.run(Probe(**options))
    assert open_text(options, "scores.json") == found
    for again in (probe.dry_run, probe.run):
        again(Probe(**options, k=(5,), overwrite=True))
    assert "images to encode" in capsys.readouterr().out


def test_scores_of_another_stage_are_not_replaced(options, tmp_path):
    theirs: dict[str, Any] = {"stage": "finetune", "encoder": "x", "random_init": False, "seed": 0}
    empty: dict[str, Any] = {"metrics": {"top1": 50.0}, "content": {}, "inputs": {}}
    write_scores(Result(folder=options["out"], **theirs, **empty))
    before = open_text(options, "scores.json")
    for overwrite in (False, True):
        with pytest.raises(MismatchError, match=r"holds the scores\.json of `finetune`"):
            probe.run(Probe(**options, overwrite=overwrite))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.json"]
    assert open_text(options, "scores.json") == before


def test_bad_images_are_listed_and_limited(options, tmp_path):
    options["train"] = shards(tmp_path / "bad", 60, seed=1, bad={40})
    probe.run(Probe(**options))
    (row,) = scores(options)["bad"]
    assert (row["shard"], row["key"]) == ("images-1.tar", "0040")
    options["train"] = shards(tmp_path / "worse", 60, seed=1, bad={1, 40})
    options["out"] = str(tmp_path / "worse-out")
    with pytest.raises(DataError, match=r"2 of 60 images .* images-0.tar:0001"):
        probe.run(Probe(**options))


def test_unlabelled_shards_are_refused(options, tmp_path):
    options["train"] = shards(tmp_path / "plain", 6, seed=1, labelled=False)
    with pytest.raises(DataError, match=r"'0000' of images-0.tar has no class number"):
        probe.run(Probe(**options))


def test_unfinished_runs_are_refused(options, tmp_path):
    arguments: dict[str, Any] = {"model_name": "vit_tiny_patch16_224", "img_size": 32}
    arguments |= {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    model = timm.create_model(**arguments, num_classes=0)
    safetensors.torch.save_file(model.state_dict(), folder / "encoder.safetensors")
    document = {"timm": arguments, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "encoder.json").write_text(json.dumps(document))
    (folder / "state.json").write_text('{"state": "interrupted"}')
    options["encoder"] = str(folder)
    with pytest.raises(MismatchError, match="is 'interrupted'; finish it"):
        probe.run(Probe(**options))
    with pytest.raises(MismatchError, match="is 'interrupted'"):
        probe.run(Probe(**(options | {"encoder": f"{folder}/encoder.safetensors"})))
    probe.run(Probe(**options, allow_unfinished=True))
    assert scores(options)["encoder"] == str(folder)


def test_dry_run_counts_and_writes_nothing(options, tmp_path, capsys):
    probe.dry_run(Probe(**options))
    with pytest.raises(MissingDataError):
        probe.dry_run(Probe(**options | {"encoder": "nowhere"}))
    said = capsys.readouterr().out
    assert "60 to learn from, 30 to score on" in said
    assert "bytes to write: about 4440 (4.44 kB) and, for each image to encode, 8 times" in said
    assert not (tmp_path / "out").exists()


def test_sets_of_other_classes_are_refused(options, tmp_path):
    options["train"] = shards(tmp_path / "abc", 60, seed=1, classes="abc")
    probe.run(Probe(**options))  # a set that names no classes is taken at its numbers
    options["val"] = shards(tmp_path / "acd", 30, seed=2, classes="acd")
    with pytest.raises(MismatchError, match=r"acd has classes that --train .*abc lacks \(d\)"):
        probe.run(Probe(**options))
    options["val"] = shards(tmp_path / "ab", 30, seed=2, classes="ab")
    with pytest.raises(MismatchError, match=r"ab has no class c, which --train .*abc has"):
        probe.dry_run(Probe(**options))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": (0,)},
        {"k": (5, 5)},
        {"temperature": 0.0},
        {"linear": ("none", "sweep")},
        {"linear_epochs": 10},
        {"linear_batch": 1},
        {"train_views": 0},
        {"sweep_lr": (-1.0,)},
        {"linear_lr": 0.0},
        {"attentive": True, "attentive_lr": (0.0, 0.1)},
        {"batch_size": 0},
        {"workers": -1},
        {"max_bad_fraction": 2.0},
        {"crop_pct": 1.5},
    ],
)
def test_wrong_values_are_refused(options, wrong):
    with pytest.raises(ConfigError, match="--"):
        Probe(**options, **wrong)


SHORT: dict[str, Any] = {
    "linear": ("sweep", "official"),
    "linear_epochs": 6,
    "linear_warmup_epochs": 1.0,
    "sweep_steps": 40,
    "sweep_batch": 20,
}


def test_every_linear_protocol_has_its_metric_and_repeats(options, tmp_path):
    probe.run(Probe(**options, **SHORT, label="colours"))
    first = scores(options)
    names = list(first["metrics"])
    assert names[-2:] == ["linear-official", "linear-sweep"]
    assert first["metrics"]["linear-sweep"] == 100
    assert first["sweep"]["pool"] == "cls"
    assert first["label"] == "colours"
    options["out"] = str(tmp_path / "again")
    probe.run(Probe(**options, **SHORT))
    second = scores(options)
    assert second["metrics"] == first["metrics"]
    assert second["config_hash"] == first["config_hash"]
    answers = np.load(tmp_path / "again/answers.npy", allow_pickle=False)
    right = 100 * float(np.mean(answers["linear"] == answers["label"]))
    assert right == first["metrics"]["linear-official"]


def test_without_a_linear_classifier_there_are_its_neighbours_alone(options):
    probe.run(Probe(**options, k=(3, 7), linear=("none",)))
    assert list(scores(options)["metrics"]) == ["knn@3", "knn@7"]
    answers = np.load(f"{options['out']}/answers.npy", allow_pickle=False)
    assert answers.dtype.names == ("label", "knn", "knn@7")


def test_an_attentive_probe_is_scored_as_the_others_are(options, capsys):
    attentive: dict[str, Any] = {
        "attentive": True,
        "attentive_epochs": 3,
        "attentive_lr": (1e-3, 1e-2),
        "attentive_memory": 0.0,
    }
    probe.run(Probe(**options | {"encoder": "pixels:16"}, k=(3,), linear=("none",), **attentive))
    # Nine tenths, a tenth and all of the images, in 3 epochs each.
    assert "its images are encoded about 6 times" in capsys.readouterr().err
    found = scores(options)
    assert found["metrics"] == {"knn@3": 100, "attentive": 100}
    assert found["intervals"]["attentive"] == list(wilson(30, 30))
    chosen = found["attentive"]
    assert chosen["rate"] in (1e-3, 1e-2)
    assert (chosen["held_out"], chosen["heads"], chosen["batch"]) == (100, 3, 16)
    answers = np.load(f"{options['out']}/answers.npy", allow_pickle=False)
    assert answers.dtype.names == ("label", "knn", "attentive")
    with pytest.raises(ConfigError, match="--attentive-epochs changes nothing without --attentive"):
        Probe(**options, attentive_epochs=3)
    with pytest.raises(ConfigError, match="--attentive changes nothing with --dense"):
        Probe(**options, attentive=True, dense=True, classes=3)


def kept_features(folder):
    """Everything that is kept, with the time when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_features_are_shared_between_probes(options, tmp_path, capsys):
    options["features"] = str(tmp_path / "features")
    probe.run(Probe(**options))
    kept = kept_features(tmp_path / "features")
    first = scores(options)["metrics"]
    for path in tmp_path.glob("t*/*.tar"):  # nothing is left to encode
        path.unlink()
    options["out"] = str(tmp_path / "other")
    capsys.readouterr()
    probe.dry_run(Probe(**options, pool="mean"))
    assert "0 to learn from, 0 to score on" in capsys.readouterr().out
    probe.dry_run(Probe(**options, precision="bf16"))
    assert " 0 to " not in capsys.readouterr().out  # features of other numbers are others
    probe.run(Probe(**options, pool="mean"))
    assert kept_features(tmp_path / "features") == kept
    assert scores(options)["metrics"] == first


def test_random_views_are_added_to_what_is_there(options, tmp_path):
    options["features"] = str(tmp_path / "features")
    probe.run(Probe(**options, **SHORT))
    before = kept_features(tmp_path / "features")
    options["out"] = str(tmp_path / "views")
    probe.run(Probe(**options, **SHORT, train_views=2))
    after = kept_features(tmp_path / "features")
    assert before.items() < after.items()
    added = [path for path in after.keys() - before.keys() if path.suffix == ".safetensors"]
    assert [len(load_file(path)["features"]) for path in added] == [60, 60]
    assert scores(options)["metrics"]["linear-sweep"] > 90


def resized_and_cropped(data, resize, size):
    """What MILAN's linear probing and DINO's k-NN show, for an upright or a wide image."""
    image = Image.open(io.BytesIO(data))
    shorter = min(image.size)
    longer = [int(resize * side / shorter) for side in image.size]
    resized = np.asarray(image.resize(longer, Image.Resampling.BICUBIC))
    top, left = (round((side - size) / 2) for side in resized.shape[:2])
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize(("crop", "resize"), [({}, 18), ({"crop_pct": 1.0}, 16)])
def test_the_encoder_sees_what_the_official_protocols_show(options, tmp_path, crop, resize):
    """The features of this encoder are the pixels that it is given."""
    kept = {"features": str(tmp_path / "features"), "linear": ("none",), **crop}
    options |= {"encoder": "pixels:16", "val": shards(tmp_path / "few", 2, seed=5)}
    probe.run(Probe(**options, **kept))
    found = (load_file(path)["features"] for path in (tmp_path / "features").glob("*.safetensors"))
    (seen_NF,) = (features_NF for features_NF in found if len(features_NF) == 2)
    rng = np.random.default_rng(5)
    for seen_F, label in zip(seen_NF, (0, 1), strict=True):
        expected_HWC = resized_and_cropped(png(label, rng), resize, 16)
        pixels_CHW = (255 * seen_F.float()).round().reshape(3, 16, 16)
        assert (pixels_CHW.permute(1, 2, 0).numpy() == expected_HWC).all()


def test_what_was_done_before_an_attentive_probe_is_stopped_is_not_done_again(options, monkeypatch):
    def stopped(*_):
        raise InterruptedRunError("stopped")

    config = Probe(
        **options | {"encoder": "pixels:16"}, k=(3,), attentive=True, attentive_epochs=1,
        attentive_lr=(1e-3, 1e-2),
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("milan_pipeline.stages.probe.scorers.attentive_answers", stopped)
        with pytest.raises(InterruptedRunError):
            probe.run(config)
    part = Path(options["out"]) / "probe-part.json"
    assert part.exists()
    with monkeypatch.context() as patch:
        for name in ("run.classify", "scorers.choose_rate"):
            patch.setattr(f"milan_pipeline.stages.probe.{name}", stopped)
        probe.run(config)
    assert not part.exists()
    found = scores(options)
    probe.run(dataclasses.replace(config, overwrite=True))
    assert scores(options) == found
