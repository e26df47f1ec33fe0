"""A model as ONNX: the same outputs for any batch, what the file tells, what is refused."""

import importlib
import json
import sys
from typing import Any

import pytest
import torch
from torch import nn

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.weights.onnx_file import onnx_model

runtime: Any = importlib.import_module("onnxruntime")


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, pixels_BCSS):
        return pixels_BCSS.mean((2, 3))


class OtherOnceTraced(nn.Module):
    """What a fault of an exporter would look like."""

    def forward(self, pixels_BCSS):
        means_BC = pixels_BCSS.mean((2, 3))
        return means_BC + 0.01 if torch.compiler.is_exporting() else means_BC


def test_any_number_of_images_gives_the_outputs_of_torch_and_the_file_names_classes():
    classes = ["ant", "bee", "an owl"]
    data, difference = onnx_model(Means(), 4, output="logits", properties={"classes": classes})
    session = runtime.InferenceSession(data)
    for images in (1, 5):
        x = torch.randn(images, 3, 4, 4)
        (found,) = session.run(["logits"], {"pixels": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), x.mean((2, 3)), atol=1e-5, rtol=0)
    assert difference < 1e-5
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == classes
    assert __file__.encode() not in data  # nor any other path


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_refused():
    with pytest.raises(DataError, match=r"differs from torch's by 1\.0e-02"):
        onnx_model(OtherOnceTraced(), 4, output="logits", properties={})


def test_more_weights_than_a_file_holds_are_refused():
    with pytest.raises(ConfigError, match=r"at most 2 GB of weights, and these are 4\.0 GB"):
        onnx_model(nn.Linear(10**5, 10**4, device="meta"), 4, output="logits", properties={})


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ConfigError, match=r"needs onnxscript.*pip install 'milan-pipeline\[onnx\]'"
    ):
        onnx_model(Means(), 4, output="logits", properties={})
