"""`export` of runs of finetune and segment: what loads, what the card says, what is refused."""

import importlib
import json
from typing import Any

import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config

from milan_pipeline.core.console import bytes_text
from milan_pipeline.errors import MismatchError
from milan_pipeline.evaluate.classification.model import read_classifier
from milan_pipeline.evaluate.segmentation.files import read_segmenter
from milan_pipeline.weights.initial import initial_weights
from tests.support.exports import (
    CLASSES,
    classifier_run,
    export,
    run_snippet,
    segmenter_run,
    write_record,
)

X = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_timm_gives_the_logits_and_class_names_and_the_view(pool, tmp_path, monkeypatch, capsys):
    model = classifier_run(tmp_path / "run", pool=pool)
    out = export(tmp_path / "run", "timm", tmp_path / "out")
    loaded: Any = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    assert torch.equal(loaded(X), model(X))
    assert tuple(loaded.pretrained_cfg["label_names"]) == CLASSES
    data = resolve_model_data_config(loaded)
    cut = [data[name] for name in ("crop_pct", "interpolation", "crop_mode")]
    assert cut == [0.8, "bicubic", "center"]
    assert (list(data["mean"]), data["input_size"]) == ([0.5, 0.4, 0.3], (3, 32, 32))
    capsys.readouterr()
    run_snippet(out, monkeypatch)
    assert capsys.readouterr().out.split(maxsplit=1)[1].strip() in CLASSES


@pytest.mark.slow
def test_transformers_runs_what_the_card_says(tmp_path, monkeypatch, capsys):
    classifier_run(tmp_path / "run")
    out = export(tmp_path / "run", "huggingface", tmp_path / "out")
    capsys.readouterr()
    run_snippet(out, monkeypatch)
    assert capsys.readouterr().out.strip() in CLASSES


def test_our_own_form_is_read_as_a_run_s_weights_are(tmp_path, monkeypatch, capsys):
    model = classifier_run(tmp_path / "run")
    out = export(tmp_path / "run", "safetensors", tmp_path / "out")
    loaded, description = read_classifier(str(out / "model.safetensors"))
    assert torch.equal(loaded.eval()(X), model(X))
    assert (description.classes, description.crop_pct) == (CLASSES, 0.8)
    capsys.readouterr()
    run_snippet(out, monkeypatch)
    assert "('ant', 'bee', 'an owl')" in capsys.readouterr().out


def test_a_segmenter_has_our_own_form_and_others_say_why_not(tmp_path, monkeypatch, capsys):
    model = segmenter_run(tmp_path / "run")
    out = export(tmp_path / "run", "safetensors", tmp_path / "out")
    loaded, description = read_segmenter(str(out / "model.safetensors"))
    assert description.classes == CLASSES
    assert "Classes (3): ant, bee, an owl." in (out / "README.md").read_text()
    assert torch.equal(loaded.eval()(X).main_BYHW, model(X).main_BYHW)
    run_snippet(out, monkeypatch)
    for form in ("timm", "huggingface"):
        export(tmp_path / "run", form, tmp_path / form, code=2)
        assert "take --form onnx or safetensors" in capsys.readouterr().err


def test_the_card_has_figures_with_their_interval_and_where_the_model_is_from(tmp_path):
    pretraining = {
        "content": {"target": "features"},
        "inputs": {
            "identity_hash": "abc", "pairs": "def",
            "identity": {"teacher": {"name": "CLIP-X", "pretrained": "tag", "license": "mit"}},
        },
    }  # fmt: skip
    (tmp_path / "first").mkdir()
    write_record(tmp_path / "first", "pretrain", **pretraining)
    for name in ("encoder.safetensors", "encoder.json"):
        (tmp_path / "first" / name).write_bytes(b"{}")
    fingerprint = importlib.import_module("milan_pipeline.encoders.load").fingerprint
    encoder = str(tmp_path / "first")
    classifier_run(tmp_path / "run")
    inputs = {"encoder": fingerprint(encoder), "train": "9 images"}
    more: Any = {"config": {"encoder": encoder}, "content": {"ema_decay": 0.99}}
    write_record(tmp_path / "run", "finetune", inputs=inputs, **more)
    out = export(tmp_path / "run", "timm", tmp_path / "out")
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\npipeline_tag: image-classification\n")
    assert "Classes (3): ant, bee, an owl." in card
    assert "| top1 | 50.00 | 40.4\u201359.6 |" in card
    for said in ("Images to train on: 9 images", "`finetune`, 7 steps; torch 1.2.3", "CLIP-X, tag"):
        assert said in card
    assert "Weights: a moving average over the steps of training, with a decay of 0.99" in card
    assert "Licence of the teacher: mit" in card
    assert "Identity of the targets: `abc`" in card
    assert str(tmp_path) not in card
    (tmp_path / "first/encoder.json").write_bytes(b"{} ")  # another encoder by now
    other = export(tmp_path / "run", "timm", tmp_path / "other") / "README.md"
    assert "CLIP-X" not in other.read_text()


def test_what_a_run_of_finetune_has_not_is_refused_with_what_to_do(tmp_path, capsys):
    classifier_run(tmp_path / "run")
    for words, said in (
        (("official",), "--form official is for what pretrain trained"),
        (("timm", "--ema"), "best weights are an average already; leave out --ema"),
    ):
        export(tmp_path / "run", words[0], tmp_path / "out", *words[1:], code=2)
        assert said in capsys.readouterr().err
    with pytest.raises(MismatchError, match="is a run of finetune"):
        initial_weights(tmp_path / "run")
    (tmp_path / "run/best.safetensors").unlink()
    export(tmp_path / "run", "timm", tmp_path / "out", code=1)
    assert "run finetune until it has scored its model" in capsys.readouterr().err


def outputs_by_onnx(folder, x):
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(folder / "model.onnx"))
    (found,) = session.run(None, {"pixels": x.numpy()})
    return torch.from_numpy(found), session


def test_a_dry_run_traces_nothing(tmp_path, monkeypatch, capsys):
    model = classifier_run(tmp_path / "run")
    monkeypatch.setattr(torch.onnx, "export", None)  # so that a call of it fails
    export(tmp_path / "run", "onnx", tmp_path / "out", "--dry-run")
    said = capsys.readouterr().out
    assert "files to write: model.onnx, config.json, README.md" in said
    size = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    assert f"about {bytes_text(size)} of weights" in said


@pytest.mark.slow
def test_onnxruntime_gives_a_classifiers_logits_and_class_names(tmp_path, monkeypatch, capsys):
    model = classifier_run(tmp_path / "run")
    out = export(tmp_path / "run", "onnx", tmp_path / "out")
    said = capsys.readouterr().out
    assert "largest difference: " in said
    found, session = outputs_by_onnx(out, X[:1])
    torch.testing.assert_close(found, model(X[:1]), atol=1e-5, rtol=0)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    config = json.loads((out / "config.json").read_text())
    assert (config["classes"], config["resized_shorter_side"]) == (list(CLASSES), 40)
    assert "outputs are within 0.0001 of PyTorch's" in (out / "README.md").read_text()
    run_snippet(out, monkeypatch)
    assert capsys.readouterr().out.split(maxsplit=1)[1].strip() in CLASSES
    again = export(tmp_path / "run", "onnx", tmp_path / "again")
    for name in ("model.onnx", "README.md"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize(
    ("make", "expected"), [(segmenter_run, "bilinear"), (classifier_run, "bicubic")]
)
def test_pixels_are_resized_as_they_were_to_train(make, expected, tmp_path, monkeypatch):
    make(tmp_path / "run")
    monkeypatch.setattr("milan_pipeline.stages.export.run.onnx_model", lambda *_, **__: (b"", 0.0))
    out = export(tmp_path / "run", "onnx", tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["interpolation"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_onnxruntime_gives_a_segmenters_logits(head, tmp_path, monkeypatch):
    model = segmenter_run(tmp_path / "run", head)
    out = export(tmp_path / "run", "onnx", tmp_path / "out")
    found, session = outputs_by_onnx(out, X)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    torch.testing.assert_close(found, model(X).main_BYHW, atol=1e-5, rtol=0)
    run_snippet(out, monkeypatch)
