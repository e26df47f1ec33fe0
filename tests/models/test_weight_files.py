"""Checkpoints of others: wherever the weights nest, and never by running what is pickled."""

import argparse
import hashlib
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.models.weight_files import read_weights

WEIGHTS = {"cls_token": torch.arange(4.0), "norm.bias": torch.ones(2, dtype=torch.float16)}


def saved(folder, document, name="checkpoint.pth"):
    torch.save(document, folder / name)
    return str(folder / name)


def prefixed(weights, prefix="module."):
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def require_read(path):
    found, sha256 = read_weights(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    assert sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "document",
    [
        WEIGHTS,
        {"model": WEIGHTS, "epoch": 3},
        {"state_dict": prefixed(WEIGHTS)},
        {"model": {"state_dict": WEIGHTS}},
        {"model": prefixed(WEIGHTS), "args": argparse.Namespace(lr=0.1, out="x"), "scaler": {}},
    ],
    ids=["bare", "model", "state_dict, module.", "both", "as MAE saves"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_weights_are_found_wherever_they_nest(document, suffix, tmp_path):
    require_read(saved(tmp_path, document, f"weights{suffix}"))


def test_safetensors_are_read(tmp_path):
    save_file(prefixed(WEIGHTS, "module._orig_mod."), tmp_path / "x.safetensors")
    require_read(str(tmp_path / "x.safetensors"))


def test_a_prefix_that_not_all_names_have_is_part_of_the_names(tmp_path):
    found, _ = read_weights(saved(tmp_path, {"module.a": torch.ones(1), "b": torch.ones(1)}))
    assert sorted(found) == ["b", "module.a"]


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_a_file_that_runs_code_is_refused_and_does_not_run(write, tmp_path):
    place, document = tmp_path / "touched", {"model": WEIGHTS}
    if write == "torch":
        path = saved(tmp_path, document | {"args": Malicious(place)})
    else:
        path = str(tmp_path / "x.pth")
        Path(path).write_bytes(pickle.dumps({"args": Malicious(place)}))
    with pytest.raises(DataError, match=r"cannot be loaded without running .* \.safetensors"):
        read_weights(path)
    assert not place.exists()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "holds no tensors by name"),
        ([WEIGHTS], "holds no tensors by name"),
        ({"model": {"epoch": 3}}, "holds 'epoch' of type int"),
        ({"x": torch.ones(2, dtype=torch.float64)}, "holds 'x' of type torch.float64"),
    ],
)
def test_what_is_no_state_dict_is_refused(document, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        read_weights(saved(tmp_path, document))


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_damaged_file_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_weights(str(tmp_path / name))


def test_a_file_of_another_kind_or_none_is_named(tmp_path):
    (tmp_path / "x.npz").touch()
    with pytest.raises(DataError, match=r"x\.npz is no \.safetensors"):
        read_weights(str(tmp_path / "x.npz"))
    with pytest.raises(MissingDataError, match=r"y\.pth does not exist"):
        read_weights(str(tmp_path / "y.pth"))


def nested(depth):
    return WEIGHTS if depth == 0 else {"model": nested(depth - 1)}


def itself():
    document: dict[str, object] = {}
    document["model"] = document
    return document


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (nested(3), "holds 'model' of type dict"),
        (itself(), "holds 'model' of type dict"),
        ({"x": torch.eye(2).to_sparse()}, r"'x', which is of the layout torch\.sparse_coo"),
        ({"x": torch.ones(2, device="meta")}, "'x', which has no values"),
        ({"x": torch.ones(1).expand(1 << 40)}, "'x', which has more values than were saved"),
        ({"x": torch.tensor([1.0, torch.nan])}, "'x', which has a value that is not finite"),
    ],
    ids=["deep", "endless", "sparse", "meta", "expanded", "nan"],
)
def test_what_are_no_plain_weights_is_refused_by_name(document, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        read_weights(saved(tmp_path, document))


@pytest.mark.parametrize("error", [KeyError, IndexError, AssertionError, struct.error, TypeError])
def test_whatever_torch_raises_is_one_sentence(error, tmp_path, monkeypatch):
    def load(*_, **__):
        raise error("odd")

    path = saved(tmp_path, WEIGHTS)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(DataError, match=r"checkpoint\.pth is no checkpoint of torch \(.*odd"):
        read_weights(path)


@pytest.mark.parametrize("data", [b"\x80\x02.", b"\x80\x02h\x00.", b"\x80\x02X\xff", b"\x80\x02}."])
def test_a_short_pickle_is_one_sentence(data, tmp_path):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.pth"):
        read_weights(str(tmp_path / "x.pth"))
