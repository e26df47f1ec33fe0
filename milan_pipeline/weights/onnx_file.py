"""Write a model as ONNX, and run it by onnxruntime before anyone else does.

torch's exporter traces the model by `torch.export` (dynamo), which needs onnxscript. The number of
images in a batch is free, their size is fixed.

Legend: B batch, S height and width of the images in pixels.
"""

import importlib
import json
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError, DataError, reason_of

INPUT = "pixels"
TOLERANCE = 1e-4
"""Largest difference from torch's outputs, as a share of the largest output, at least of 1."""
LARGEST = 2_000_000_000  # bytes of weights: a file of protobuf ends at 2 GiB
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


class OnnxModel(NamedTuple):
    """A checked model.

    Attributes:
        data: the file.
        difference: largest between its outputs and torch's.
    """

    data: bytes
    difference: float


def onnx_model(
    model: nn.Module, image_size: int, *, output: str, properties: Mapping[str, Any]
) -> OnnxModel:
    """Trace a model, and compare what onnxruntime computes on random pixels with torch.

    Args:
        model: on the CPU, in evaluation mode; (B, 3, S, S) float32 to a tensor of B rows.
        image_size: S.
        output: the name of its output; the input is `pixels`.
        properties: kept in the file as JSON, by name.

    Raises:
        ConfigError: a package is missing, the model is too large, or torch cannot trace it.
        DataError: the outputs differ too much.
    """
    runtime = require_onnx(model)
    generator = torch.Generator().manual_seed(0)
    pixels_BCSS = torch.randn(3, 3, image_size, image_size, generator=generator)
    proto = _traced(model, pixels_BCSS[:2], output)
    for node in [*proto.graph.node, *(node for each in proto.functions for node in each.node)]:
        del node.metadata_props[:]  # they tell paths of the machine
    for name, value in properties.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
    data: bytes = proto.SerializeToString(deterministic=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected: Tensor = model(pixels_BCSS)
    (found,) = session.run([output], {INPUT: pixels_BCSS.numpy()})
    difference = float((torch.from_numpy(found) - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise DataError(
            f"the ONNX model differs from torch's by {difference:.1e}, more than the {allowed:.1e} "
            "that rounding explains; take --form safetensors, or other versions of torch and "
            "onnxscript"
        )
    return OnnxModel(data, difference)


def require_onnx(model: nn.Module) -> Any:
    """Refuse a model that is too large for the form, or what is not installed; return onnxruntime.

    Raises:
        ConfigError: the model is too large, or a package is missing.
    """
    _, runtime, _ = (_package(name) for name in PACKAGES)
    size = sum(4 * weight.numel() for weight in model.state_dict().values())
    if size > LARGEST:
        raise ConfigError(
            f"--form onnx holds at most {LARGEST / 1e9:g} GB of weights, and these are "
            f"{size / 1e9:.1f} GB; take --form safetensors"
        )
    return runtime


def _traced(model: nn.Module, pixels_BCSS: Tensor, output: str) -> Any:
    """Return the model as ONNX's protobuf."""
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program: Any = torch.onnx.export(
                model,
                (pixels_BCSS,),
                dynamo=True,
                dynamic_shapes=({0: batch},),
                input_names=[INPUT],
                output_names=[output],
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ConfigError(
            f"torch cannot write this model as ONNX ({reason_of(error)}); take --form safetensors"
        ) from error
    return program.model_proto


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--form onnx needs {name}, which is not installed; run "
            "`pip install 'milan-pipeline[onnx]'`"
        ) from error
