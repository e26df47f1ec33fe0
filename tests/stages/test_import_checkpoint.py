"""The stage import-checkpoint: official weights become a run that the others take."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.models.positions import sincos_positions
from milan_pipeline.models.student import in_grid_order, patchify
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.weights.loaded_run import load_run
from milan_pipeline.weights.official import official_name
from tests.support.students import CASE, HEADS, encoder_only, import_checkpoint, official_weights


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"model": official_weights(), "epoch": 400}, path)
    return path


def require_weights(run, weights):
    state = load_run(run).student.state_dict()
    assert {official_name(name) for name in state} == weights.keys()
    assert all(torch.equal(state[name], weights[official_name(name)]) for name in state)


def test_the_run_predicts_what_the_official_code_did(checkpoint, tmp_path):
    run = load_run(import_checkpoint(checkpoint, tmp_path / "run"))
    case, values = load_file(CASE), json.loads(CASE.with_suffix(".json").read_text())
    assert (run.grid, run.patch_size, run.kept) == ((4, 4), 16, values["num_kept"])
    order = case["io/ids_shuffle"]
    kept_BK, masked_BM = (
        part.sort(dim=1).values for part in order.split([run.kept, 16 - run.kept], dim=1)
    )
    patches_BLP = patchify(case["io/images"], 16)
    patches_BKP = patches_BLP[torch.arange(len(order))[:, None], kept_BK]
    with torch.no_grad():
        pred_BND = in_grid_order(run.student(patches_BKP, kept_BK, masked_BM), kept_BK, masked_BM)
    torch.testing.assert_close(pred_BND, case["io/pred"], atol=1e-5, rtol=0)


def test_the_run_is_shown_pixels_by_the_statistics_that_it_was_imported_with(checkpoint, tmp_path):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    words = [word for value in mean for word in ("--mean", value)]
    words += [word for value in std for word in ("--std", value)]
    run = load_run(import_checkpoint(checkpoint, tmp_path / "run", *HEADS, *words))
    assert (tuple(run.mean), tuple(run.std)) == (mean, std)


def test_every_tensor_is_kept_to_the_bit_positions_included(tmp_path):
    weights = official_weights()
    weights["pos_embed"] = torch.randn_like(weights["pos_embed"])  # of no known construction
    save_file({f"module.{name}": w for name, w in weights.items()}, tmp_path / "x.safetensors")
    run = import_checkpoint(tmp_path / "x.safetensors", tmp_path / "run")
    require_weights(run, weights)
    assert not torch.equal(weights["pos_embed"], sincos_positions((4, 4), 48))


def test_the_run_folder_is_that_of_a_finished_run(checkpoint, tmp_path):
    run = import_checkpoint(checkpoint, tmp_path / "run")
    state, record = (json.loads((run / name).read_text()) for name in ("state.json", "config.json"))
    assert (state["state"], state["step"], record["state"]) == ("done", 0, "done")
    assert record["content"]["decoder_width"] == 32
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000000"]
    description = json.loads((run / "encoder.json").read_text())
    assert description["mean"] == [0.485, 0.456, 0.406]
    model = timm.create_model(**description["timm"])
    model.load_state_dict(load_file(run / "encoder.safetensors"), strict=True)


def test_a_second_run_has_nothing_to_do_and_other_options_are_refused(checkpoint, tmp_path, capsys):
    run = import_checkpoint(checkpoint, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for more in ((), (*HEADS, "--dry-run")):
        import_checkpoint(checkpoint, run, *more)
        assert "nothing to do, the checkpoint is imported" in capsys.readouterr().out
    import_checkpoint(checkpoint, run, "--heads", 8, "--decoder-heads", 4, code=1)
    assert "options.heads is 4 there and 8 here" in capsys.readouterr().err
    torch.save(official_weights() | {"cls_token": torch.ones(1, 1, 48)}, checkpoint)
    import_checkpoint(checkpoint, run, code=1)
    assert "inputs.checkpoint_sha256 is" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_a_folder_of_targets_is_no_place_for_a_run(checkpoint, target_store, tmp_path, capsys):
    (tmp_path / "zarr.json").write_bytes((target_store / "zarr.json").read_bytes())
    import_checkpoint(checkpoint, tmp_path, code=2)
    assert (
        "already holds a target store; give another folder for the run" in capsys.readouterr().err
    )


def test_an_import_that_was_killed_is_done_again(checkpoint, tmp_path):
    run = import_checkpoint(checkpoint, tmp_path / "run")
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_bytes(record_bytes(record | {"state": "running"}))
    (run / "encoder.json").unlink()
    import_checkpoint(checkpoint, run)
    require_weights(run, official_weights())
    assert json.loads((run / "config.json").read_text())["state"] == "done"


def test_a_lost_encoder_is_imported_again(checkpoint, tmp_path):
    run = import_checkpoint(checkpoint, tmp_path / "run")
    lost = run / "encoder.safetensors"
    data = lost.read_bytes()
    lost.unlink()
    import_checkpoint(checkpoint, run)
    assert lost.read_bytes() == data


def test_a_lost_decoder_is_imported_again(checkpoint, tmp_path):
    run = import_checkpoint(checkpoint, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    import_checkpoint(checkpoint, run)
    require_weights(run, official_weights())


def test_an_encoder_alone_says_so_and_has_no_checkpoint(tmp_path, capsys):
    torch.save(encoder_only(official_weights()), tmp_path / "encoder.pth")
    run = import_checkpoint(tmp_path / "encoder.pth", tmp_path / "run")
    assert "an encoder alone" in capsys.readouterr().out
    import_checkpoint(tmp_path / "encoder.pth", run)
    assert "nothing to do" in capsys.readouterr().out
    assert not (run / "checkpoints").exists()
    found = load_file(run / "encoder.safetensors")
    expected = encoder_only(official_weights())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_an_encoder_within_a_larger_model_is_found_by_its_names(tmp_path, capsys):
    expected = encoder_only(official_weights())
    backbone = {f"backbone.{name}": w for name, w in expected.items()}
    teacher = backbone | {"head.last.weight": torch.ones(2, 2)}
    torch.save({"student": backbone, "teacher": teacher, "epoch": 3}, tmp_path / "dino.pth")
    run = import_checkpoint(tmp_path / "dino.pth", tmp_path / "run")
    assert "names begin with 'backbone.'; 1 tensor is left out" in capsys.readouterr().err
    found = load_file(run / "encoder.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    both = {
        f"{part}.{name}": w.clone() for part in ("query", "key") for name, w in expected.items()
    }
    save_file(both, tmp_path / "both.safetensors")
    import_checkpoint(tmp_path / "both.safetensors", tmp_path / "other", code=1)
    assert "holds several encoders, under key., query." in capsys.readouterr().err


@pytest.mark.parametrize("part", [dict, encoder_only], ids=["whole", "encoder"])
def test_the_encoder_can_be_evaluated_and_drawn_anew(part, tmp_path):
    torch.save(part(official_weights()), tmp_path / "x.pth")
    run = import_checkpoint(tmp_path / "x.pth", tmp_path / "run")
    views = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    features, floor = (
        load_encoder(str(run), random_init=random).features(views) for random in (False, True)
    )
    assert features.shape == floor.shape == (2, 48)
    assert not torch.allclose(features, floor)


def test_dry_run_tells_the_sizes_and_writes_nothing(checkpoint, tmp_path, capsys):
    import_checkpoint(checkpoint, tmp_path / "run", *HEADS, "--dry-run")
    said = capsys.readouterr().out
    assert "3 blocks of width 48, 4 heads, 4x4 patches of 16 pixels" in said
    assert "its decoder, 2 blocks of width 32" in said
    assert "bytes to write: about" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--heads 0", "--heads 0 is below 1"),
        ("--heads 5", "--heads 5 does not divide"),
        ("--heads 4", "--decoder-heads 16 does not divide the width 24"),
        ("--mask-ratio 1.5", "--mask-ratio 1.5"),
        ("--heads 4 --decoder-heads 4 --mask-ratio 0.99", "--mask-ratio 0.99"),
        ("--mean 0.5", "--mean 0.5 is not 3 values"),
        ("--std 0 --std 1 --std 1", "--std 0.0 1.0 1.0 has a 0"),
        ("--student resnet18 --heads 4 --decoder-heads 4", "--student 'resnet18'"),
    ],
)
def test_options_that_cannot_work_are_wrong_usage(options, reason, tmp_path, capsys):
    weights = official_weights()
    weights["mask_token"] = torch.zeros(1, 1, 24 if "16" in reason else 32)
    torch.save(weights, tmp_path / "x.pth")
    import_checkpoint(tmp_path / "x.pth", tmp_path / "run", *options.split(), code=2)
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_class_token_is_refused(checkpoint, tmp_path, capsys):
    options = (*HEADS, "--student", "vit_little_patch16_reg4_gap_256")
    import_checkpoint(checkpoint, tmp_path / "run", *options, code=2)
    assert "has no class token" in capsys.readouterr().err


def test_checkpoints_without_a_record_are_not_written_over(checkpoint, tmp_path, capsys):
    run = import_checkpoint(checkpoint, tmp_path / "run")
    (run / "config.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for more in ((), (*HEADS, "--dry-run")):
        import_checkpoint(checkpoint, run, *more, code=1)
        assert "has checkpoints but no config.json; give another --out" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_a_fine_tuned_classifier_is_refused_by_name(tmp_path, capsys):
    weights = encoder_only(official_weights())
    extra = {"fc_norm.weight": torch.ones(48), "head.weight": torch.ones(3, 48)}
    torch.save({"model": weights | extra}, tmp_path / "tuned.pth")
    import_checkpoint(tmp_path / "tuned.pth", tmp_path / "run", code=1)
    error = capsys.readouterr().err
    assert f"{tmp_path / 'tuned.pth'} is a fine-tuned classifier (it has fc_norm.weight" in error
    assert "give the checkpoint of pretraining" in error
