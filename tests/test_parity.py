"""The recorded official numbers are reproduced, and a deviation does not pass."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.parity import main

CASE = Path(__file__).parent / "data" / "parity" / "tiny.safetensors"


@pytest.fixture
def case(tmp_path):
    """A copy of the case that a test may spoil."""
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(CASE.with_suffix(suffix), tmp_path / f"case{suffix}")
    return tmp_path / "case.safetensors"


def change_tensor(case, name, change):
    tensors = load_file(case)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, case)


def change_values(case, change):
    path = case.with_suffix(".json")
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def beyond(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [line.split("  ")[0] for line in lines if line.endswith("BEYOND")]


def test_the_official_numbers_are_reproduced(capsys):
    assert main([str(CASE)]) == 0
    output = capsys.readouterr().out
    assert "81 compared, 0 beyond tolerance" in output
    for line in ("loss", "predictions", "decoder_pos_embed", "gradient of mask_token"):
        assert f"\n{line} " in output


def test_a_perturbed_weight_is_noticed(case, capsys):
    name = "state/decoder_blocks.0.attn.q.weight"
    change_tensor(case, name, lambda weight: weight * 1.01)
    assert main([str(case)]) == 1
    assert "gradient of decoder_blocks.0.attn.q.weight" in beyond(capsys)


def test_another_construction_of_the_positions_is_noticed(case, capsys):
    change_tensor(case, "state/pos_embed", lambda table: table.roll(24, dims=-1))
    assert main([str(case)]) == 1
    assert "pos_embed" in beyond(capsys)


def test_another_mask_is_noticed(case, capsys):
    change_tensor(case, "io/ids_shuffle", lambda order: order.flip(1))
    assert main([str(case)]) == 1
    assert "mask" in beyond(capsys)


def test_a_gradient_too_many_or_too_few_is_noticed(case, capsys):
    def swap(values):
        values["grad_norms"]["pos_embed"] = values["grad_norms"].pop("norm.bias")

    change_values(case, swap)
    assert main([str(case)]) == 1
    assert beyond(capsys) == ["gradient of pos_embed", "gradient of norm.bias"]


def test_a_value_that_is_not_a_number_is_noticed(case, capsys):
    change_tensor(case, "io/pred", lambda pred: torch.full_like(pred, float("nan")))
    assert main([str(case)]) == 1
    assert beyond(capsys) == ["predictions"]


def test_a_case_that_cannot_be_read_is_one_sentence(case, capsys):
    change_values(case, lambda values: values.pop("num_kept"))
    assert main([str(case)]) == 2
    case.write_bytes(b"no safetensors")
    assert main([str(case)]) == 2
    case.unlink()
    assert main([str(case)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("Error: ") for line in errors)


def test_weights_of_other_sizes_are_refused(case, capsys):
    change_values(case, lambda values: values["config"].update(depth=2))
    assert main([str(case)]) == 2
    assert "blocks.2.attn.proj.bias" in capsys.readouterr().err
