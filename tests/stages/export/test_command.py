"""The stage export: each form loads where it is for, and comes back equal to the bit."""

import importlib
import json
import shutil
import subprocess
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load, load_file, save_file
from timm.data.config import resolve_model_data_config

from milan_pipeline.encoders.load import fingerprint, load_encoder
from milan_pipeline.models.weight_files import EMA_ENCODER, ENCODER
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.training.checkpoints import MODEL
from milan_pipeline.weights.loaded_run import load_run
from tests.support.exports import export, run_snippet
from tests.support.pretrain import pretrain
from tests.support.students import encoder_only, import_checkpoint, merged, official_weights


@pytest.fixture(scope="module")
def trained(image_shards, target_shards, tmp_path_factory):
    """A run of one step: 32 px in patches of 8, 2 heads in encoder and decoder."""
    run = tmp_path_factory.mktemp("trained") / "run"
    pretrain(image_shards, target_shards, run, "--max-steps", 1)
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(trained, tmp_path / "run")


def require_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def weights_of(run):
    (checkpoint,) = (run / "checkpoints").iterdir()
    return load_file(checkpoint / MODEL)


@pytest.mark.parametrize(("form", "name"), [("timm", "model"), ("official", "checkpoint")])
def test_hashes_lie_beside_what_is_written(form, name, trained, tmp_path):
    out = export(trained, form, tmp_path / form)
    subprocess.run(["sha256sum", "--check", "--strict", f"{name}.sha256"], cwd=out, check=True)


# ---- round trips


def test_official_goes_out_and_comes_back_with_every_tensor_equal(trained, tmp_path):
    out = export(trained, "official", tmp_path / "official")
    heads = ("--heads", 2, "--decoder-heads", 2)
    again = import_checkpoint(out / "checkpoint.pth", tmp_path / "again", *heads)
    require_equal(weights_of(again), weights_of(trained))
    require_equal(
        load_file(again / "encoder.safetensors"), load_file(trained / "encoder.safetensors")
    )
    order = torch.arange(16)
    view = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    ours, theirs = (load_run(r).predict(view, order[:4], order[4:]) for r in (trained, again))
    assert torch.equal(ours, theirs)


def test_official_weights_come_in_and_go_out_equal(tmp_path):
    torch.save({"model": official_weights()}, tmp_path / "x.pth")
    run = import_checkpoint(tmp_path / "x.pth", tmp_path / "run")
    out = export(run, "official", tmp_path / "official")
    require_equal(
        torch.load(out / "checkpoint.pth", weights_only=True)["model"], official_weights()
    )


def test_timm_loads_the_folder_strictly_and_the_weights_by_name(trained, tmp_path):
    out = export(trained, "timm", tmp_path / "timm")
    expected = load_file(trained / "encoder.safetensors")
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    require_equal(model.state_dict(), expected)
    assert model.num_classes == 0
    data = resolve_model_data_config(model)
    assert tuple(data["input_size"]) == (3, 32, 32)
    assert (list(data["mean"]), data["interpolation"]) == ([0.485, 0.456, 0.406], "bicubic")
    config = json.loads((out / "config.json").read_text())
    named = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    named.load_state_dict(load_file(out / "model.safetensors"), strict=True)
    require_equal(named.state_dict(), expected)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(named.eval()(x), model.eval()(x))
    classifier = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=5)
    assert classifier(x).shape == (2, 5)
    assert all(torch.equal(classifier.state_dict()[name], expected[name]) for name in expected)


def test_huggingface_loads_all_of_it_and_computes_the_same(trained, tmp_path):
    transformers: Any = importlib.import_module("transformers")  # seconds to import and to type
    out = export(trained, "huggingface", tmp_path / "hf")
    model, report = transformers.ViTModel.from_pretrained(
        str(out), add_pooling_layer=False, output_loading_info=True
    )
    assert not any(report.values()), report
    expected = load_file(trained / "encoder.safetensors")
    require_equal(merged(load_file(out / "model.safetensors")), expected)
    described = json.loads((trained / "encoder.json").read_text())["timm"]
    encoder: Any = timm.create_model(**described).eval()
    encoder.load_state_dict(expected)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.eval()(x).last_hidden_state
        torch.testing.assert_close(tokens, encoder.forward_features(x), atol=1e-5, rtol=0)
    processor = transformers.ViTImageProcessor.from_pretrained(str(out))
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]


# ---- what is there, and what is not


def test_the_same_run_gives_the_same_bytes(trained, tmp_path):
    for form in ("timm", "official", "huggingface"):
        first, second = (export(trained, form, tmp_path / form / name) for name in "ab")
        for path in first.iterdir():
            if path.name != "export.json":
                assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_second_export_has_nothing_to_do_and_another_form_is_refused(trained, tmp_path, capsys):
    out = export(trained, "timm", tmp_path / "out")
    export(trained, "timm", out)
    assert "nothing to do, the timm form is there" in capsys.readouterr().out
    (lost,) = out.glob("*.safetensors")
    data = lost.read_bytes()
    lost.unlink()
    export(trained, "timm", out)
    assert lost.read_bytes() == data
    export(trained, "huggingface", out, code=1)
    assert "options.form is 'timm' there and 'huggingface' here" in capsys.readouterr().err
    export(trained, "huggingface", out, "--overwrite")
    assert json.loads((out / "config.json").read_text())["model_type"] == "vit"


def test_the_run_itself_and_folders_of_others_are_not_written_over(run, tmp_path, capsys):
    before = (run / "config.json").read_bytes()
    export(run, "timm", run, "--overwrite", code=1)
    assert "holds a config.json that export did not write" in capsys.readouterr().err
    export(run, "official", run, code=1)
    assert "holds a state.json that export did not write" in capsys.readouterr().err
    (tmp_path / "t.zarr").mkdir()
    (tmp_path / "t.zarr" / "zarr.json").write_text("{}")
    export(run, "official", tmp_path / "t.zarr", code=2)
    assert "t.zarr already holds a target store; give another folder" in capsys.readouterr().err
    assert (run / "config.json").read_bytes() == before


def test_a_run_that_is_not_done_is_refused_unless_allowed(run, tmp_path, capsys):
    state = json.loads((run / "state.json").read_text()) | {"state": "interrupted"}
    (run / "state.json").write_text(json.dumps(state))
    export(run, "official", tmp_path / "out", code=1)
    assert "is 'interrupted'; finish it or --allow-unfinished" in capsys.readouterr().err
    export(run, "official", tmp_path / "out", "--allow-unfinished")
    assert (tmp_path / "out" / "checkpoint.pth").exists()
    (run / "encoder.safetensors").unlink()
    export(run, "timm", tmp_path / "timm", "--allow-unfinished", code=1)
    assert "has no encoder.safetensors" in capsys.readouterr().err


def test_the_moving_average_is_exported_where_there_is_one(run, tmp_path, capsys):
    export(run, "timm", tmp_path / "out", "--ema", code=1)
    assert "has no encoder-ema.safetensors; leave out --ema" in capsys.readouterr().err
    average = {name: w * 0.5 for name, w in load_file(run / "encoder.safetensors").items()}
    save_file(average, run / "encoder-ema.safetensors")
    export(run, "timm", tmp_path / "out", "--ema")
    require_equal(load_file(tmp_path / "out" / "model.safetensors"), average)
    export(run, "official", tmp_path / "official", "--ema", code=2)
    assert "--ema does not work with --form official" in capsys.readouterr().err


def test_an_encoder_alone_has_no_official_form(tmp_path, capsys):
    torch.save(encoder_only(official_weights()), tmp_path / "x.pth")
    run = import_checkpoint(tmp_path / "x.pth", tmp_path / "run")
    export(run, "official", tmp_path / "official", code=1)
    assert "has no checkpoint with a decoder" in capsys.readouterr().err
    out = export(run, "timm", tmp_path / "timm")
    require_equal(load_file(out / "model.safetensors"), encoder_only(official_weights()))


def test_another_decoder_has_no_official_form(run, tmp_path, capsys):
    record = json.loads((run / "config.json").read_text())
    record["content"]["decoder"] = "linear"
    (run / "config.json").write_bytes(record_bytes(record))
    export(run, "official", tmp_path / "official", code=1)
    assert "has the 'linear' decoder" in capsys.readouterr().err


def test_several_teachers_have_no_official_form(run, tmp_path, capsys):
    record = json.loads((run / "config.json").read_text())
    part = {name: record["inputs"].pop(name) for name in ("identity_hash", "identity")}
    record["inputs"]["targets"] = {"clip": part, "dino": part}
    (run / "config.json").write_bytes(record_bytes(record))
    export(run, "official", tmp_path / "official", code=1)
    assert "a head for each of its teachers (clip, dino)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 3}, "describes another encoder than the weights"),
        ({"model_name": "no_such_model"}, "timm knows no 'no_such_model'"),
        ({"model_name": "resnet18"}, "describes no encoder"),
    ],
)
def test_a_description_of_another_encoder_is_refused(change, reason, run, tmp_path, capsys):
    document = json.loads((run / "encoder.json").read_text())
    document["timm"] |= change
    (run / "encoder.json").write_text(json.dumps(document))
    export(run, "timm", tmp_path / "out", code=1)
    assert "encoder.json is not the file that" in capsys.readouterr().err
    (run / "encoder.sha256").unlink()
    export(run, "timm", tmp_path / "out", code=1)
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_encoder_whose_record_is_lost_is_exported(run, tmp_path):
    (run / "config.json").unlink()
    export(run, "timm", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "SHA-256 of the weights in the run" in card
    assert "Training" not in card


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    export(tmp_path, "timm", tmp_path / "out", code=1)
    assert "holds no run; give a folder that pretrain" in capsys.readouterr().err


def test_dry_run_names_the_files_and_writes_nothing(trained, tmp_path, capsys):
    export(trained, "huggingface", tmp_path / "out", "--dry-run")
    said = capsys.readouterr().out
    assert "to write: model.safetensors, config.json, preprocessor_config.json, README.md" in said
    assert "bytes to write: " in said
    assert not (tmp_path / "out").exists()


def test_an_extended_run_that_is_not_done_gives_its_newest_weights(
    image_shards, target_shards, tmp_path
):
    run, rest = tmp_path / "run", ("--ema-decay", 0.5, "--base-lr", 0.1)
    pretrain(image_shards, target_shards, run, *rest, "--max-steps", 1)
    stale = {path.name: path.read_bytes() for path in run.glob("encoder*")}
    pretrain(image_shards, target_shards, run, *rest, "--max-steps", 2)
    final = {name: load((run / name).read_bytes()) for name in (ENCODER, EMA_ENCODER)}
    for name, data in stale.items():  # as if it had been stopped before its end
        (run / name).write_bytes(data)
    (run / "state.json").write_text('{"state": "interrupted", "step": 2}')
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert fingerprint(str(run)) != fingerprint(str(run / ENCODER))
    features, old = (load_encoder(str(spec)).features(views) for spec in (run, run / ENCODER))
    assert not torch.equal(features, old)
    for name, more in ((ENCODER, ()), (EMA_ENCODER, ("--ema",))):
        out = export(run, "timm", tmp_path / name, "--allow-unfinished", *more)
        require_equal(load_file(out / "model.safetensors"), final[name])


def test_an_encoder_that_is_not_plain_has_no_official_form(
    image_shards, target_shards, tmp_path, capsys
):
    run, registers = tmp_path / "run", ("--student", "vit_small_patch14_reg4_dinov2")
    pretrain(image_shards, target_shards, run, *registers, "--max-steps", 1)
    export(run, "official", tmp_path / "official", code=2)
    error = capsys.readouterr().err
    assert "the encoder has register tokens, which MILAN's official code cannot load" in error
    assert "--form timm" in error
    assert not (tmp_path / "official").exists()


def test_a_run_without_an_encoder_yet_has_an_official_form(run, tmp_path):
    (run / "state.json").write_text('{"state": "interrupted", "step": 1}')
    for path in run.glob("encoder.*"):
        path.unlink()
    out = export(run, "official", tmp_path / "official", "--allow-unfinished")
    assert (out / "checkpoint.pth").exists()


SLOW = pytest.mark.slow
FORMS = (
    "timm",
    "official",
    "safetensors",
    *(pytest.param(f, marks=SLOW) for f in ("huggingface", "onnx")),
)


@pytest.mark.parametrize("form", FORMS)
def test_the_card_of_an_encoder_tells_its_teacher_and_how_to_load_it(
    form, trained, tmp_path, monkeypatch
):
    out = export(trained, form, tmp_path / "out")
    run_snippet(out, monkeypatch)
    card = (out / "README.md").read_text()
    record = json.loads((trained / "config.json").read_text())
    assert record["inputs"]["identity_hash"] in card
    assert "Licence of the teacher: not recorded" in card
    assert "None are stored" in card
    assert str(trained.parent) not in card


@pytest.mark.slow
def test_onnxruntime_gives_the_tokens_of_an_encoder(trained, tmp_path):
    runtime: Any = importlib.import_module("onnxruntime")
    out = export(trained, "onnx", tmp_path / "onnx")
    encoder: Any = timm.create_model(
        f"local-dir:{export(trained, 'timm', tmp_path / 'timm')}", pretrained=True
    )
    x = torch.randn(3, 3, 32, 32)
    (found,) = runtime.InferenceSession(str(out / "model.onnx")).run(
        ["tokens"], {"pixels": x.numpy()}
    )
    expected = encoder.eval().forward_features(x)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)


def test_our_own_form_is_an_encoder_for_other_commands(trained, tmp_path):
    out = export(trained, "safetensors", tmp_path / "out")
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    ours, theirs = (
        load_encoder(str(s)).features(views) for s in (out / "model.safetensors", trained)
    )
    assert torch.equal(ours, theirs)
