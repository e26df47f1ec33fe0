"""The recorded official numbers are reproduced, and a deviation does not pass."""

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.parity import main
from tests.support.parity import beyond, change_tensor, change_values

CASE = Path(__file__).parents[1] / "fixtures" / "parity" / "tiny.safetensors"


@pytest.fixture
def case(tmp_path):
    """A copy of the case that a test may spoil."""
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(CASE.with_suffix(suffix), tmp_path / f"case{suffix}")
    return tmp_path / "case.safetensors"


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
