"""Every recorded kind is reproduced by our own code, and neither a fault nor odd files pass."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.parity import main
from tests.support.disturbances import before_steps, one_rate_for_all_layers
from tests.support.parity import beyond, change_tensor, change_values

CASES = Path(__file__).parents[1] / "fixtures" / "parity"


@pytest.fixture
def copied(tmp_path):
    """Copies a case that a test may spoil."""

    def copy(name):
        for suffix in (".safetensors", ".json"):
            shutil.copyfile((CASES / name).with_suffix(suffix), tmp_path / f"case{suffix}")
        return tmp_path / "case.safetensors"

    return copy


@pytest.mark.parametrize(
    ("name", "lines", "some"),
    [
        ("finetune-tiny", 77, "rates of cls_token and 2 more"),
        ("finetune-accum", 77, "norms of all gradients"),
        ("linprobe-tiny", 10, "momentum of weight moved by"),
        ("knn-tiny", 16, "votes of 200"),
        ("posembed", 12, "sincos_16, loaded"),
        ("views", 4, "pixels of png_1, probe"),
    ],
)
def test_the_official_numbers_are_reproduced(name, lines, some, capsys):
    assert main([str(CASES / f"{name}.safetensors")]) == 0
    said = capsys.readouterr().out
    assert f"{lines} compared, 0 beyond tolerance" in said
    assert f"\n{some} " in said


def test_a_trainer_that_ignores_layers_is_noticed(capsys):
    """The fault that this was made for: one rate for all layers."""
    with one_rate_for_all_layers():
        assert main([str(CASES / "finetune-tiny.safetensors")]) == 1
    missed = beyond(capsys)
    assert {"losses", "rates of patch_embed.proj.weight", "pos_embed moved by"} <= set(missed)
    assert "rates of head.weight" not in missed


def test_betas_that_are_not_the_official_ones_are_noticed(capsys):
    def of_pretraining(optimiser):
        for group in optimiser.param_groups:
            group["betas"] = (0.9, 0.95)

    with before_steps(of_pretraining):
        assert main([str(CASES / "finetune-tiny.safetensors")]) == 1
    assert "head.weight moved by" in beyond(capsys)


@pytest.mark.parametrize(
    ("tensor", "change", "missed"),
    [
        ("knn-tiny/out/answers_20", lambda t: t.roll(1), "answers of 20"),
        ("knn-tiny/io/train_labels", lambda t: t.roll(1), "votes of 10"),
        ("linprobe-tiny/io/rows", lambda t: t.flip(0), "head.1.weight moved by"),
        ("linprobe-tiny/out/lr", lambda t: t * (1 + 1e-8), "rates"),
        ("views/out/pixels_1", lambda t: t.roll(1, -1), "pixels of png_1, probe"),
    ],
)
def test_other_numbers_are_noticed(copied, tensor, change, missed, capsys):
    name, _, tensor = tensor.partition("/")
    case = copied(name)
    change_tensor(case, tensor, change)
    assert main([str(case)]) == 1
    assert missed in beyond(capsys)


def test_a_case_may_lack_pixels_and_what_is_tested_at_the_end(copied, capsys):
    case = copied("finetune-accum")
    tensors = load_file(case)
    for name in list(tensors):
        if "test_" in name or name in ("io/pixels", "io/labels"):
            del tensors[name]
    save_file(tensors, case)
    assert main([str(case)]) == 0
    assert "75 compared" in capsys.readouterr().out


def test_what_cannot_be_read_is_one_sentence(copied, capsys):
    wrong = [
        ("knn-tiny", lambda values: values.update(kind="guess"), "kind 'guess' is unknown"),
        ("knn-tiny", lambda values: values["settings"].pop("k"), "lacks 'k'"),
        ("knn-tiny", lambda values: values["tolerances"].update(votes="few"), "has no number"),
        ("linprobe-tiny", lambda values: values["settings"].update(accum_iter=2), "accum_iter 2"),
        ("linprobe-tiny", lambda values: values["settings"].update(epochs="many"), "fit together"),
        ("finetune-tiny", lambda values: values["settings"].update(accum_iter=3), "multiple"),
    ]
    for name, change, said in wrong:
        case = copied(name)
        change_values(case, change)
        assert main([str(case)]) == 2
        (error,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("Error: ")]
        assert said in error


def test_tolerances_are_the_cases_own(copied, capsys):
    case = copied("posembed")
    change_tensor(case, "out/random_8", lambda table: table + torch.tensor(5e-6))
    assert main([str(case)]) == 1
    assert beyond(capsys) == ["random_8, loaded", "random_8, seen"]
    path = case.with_suffix(".json")
    loose = json.loads(path.read_text()) | {"tolerances": {"out": "absolute 1e-5"}}
    path.write_text(json.dumps(loose))
    assert main([str(case)]) == 0
