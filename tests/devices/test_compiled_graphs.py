"""Compiling: blocks of one kind share a graph, in training and in evaluation.

A backend counts the graphs that torch makes, and runs each as it stands.
"""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.func import functional_call

from milan_pipeline.evaluate.segmentation.model import HeadSpec, make_segmenter
from milan_pipeline.models.baseline_decoders import DECODERS
from milan_pipeline.models.drop_path import share_graphs
from milan_pipeline.training.compiling import compile_blocks
from tests.support.segment import VIT
from tests.support.students import tiny_batch, tiny_student

# torch looks at gradients that are none while it traces what is compiled.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
Graphs = list[torch.fx.GraphModule]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    if torch.__version__ < "2.10":
        pytest.skip("this torch cannot be told to fail where it compiles once too often")
    made: Graphs = []

    def counting(graph: torch.fx.GraphModule, _: Any) -> Any:
        made.append(graph)
        return graph.forward

    compiled = functools.partialmethod(nn.Module.compile, backend=counting)
    monkeypatch.setattr(nn.Module, "compile", compiled)
    torch.compiler.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield made
    torch.compiler.reset()


def deep_classifier() -> nn.Module:
    """More blocks than graphs that torch would make, each with a rate of its own."""
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 10, "num_heads": 2}
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, embed_dim=16, drop_path_rate=0.1, **sizes
    )
    share_graphs(model)
    compile_blocks(model)
    return model


def test_blocks_of_all_rates_share_a_graph_and_another_where_they_are_scored(
    graphs: Graphs,
) -> None:
    model, images = deep_classifier(), torch.zeros(4, 3, 32, 32)
    for _ in range(2):
        model(images).sum().backward()
    assert len(graphs) == 1
    averages = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.eval()
    with torch.no_grad():
        for weights in ({}, averages):
            functional_call(model, weights, (images,))
        assert len(graphs) == 3
        for weights in ({}, averages):  # the last batch is smaller: any size from then on
            functional_call(model, weights, (images[:3],))
            functional_call(model, weights, (images[:2],))
        assert len(graphs) == 5
    for last in (3, 2):
        model.train()(images[:last]).sum().backward()
    assert len(graphs) == 6  # fewer than torch's limit, 8


def test_a_segmenter_has_a_graph_for_all_image_sizes(graphs: Graphs) -> None:
    spec = HeadSpec(head="linear", channels=8, classes=3)
    model = make_segmenter(VIT, spec, drop_path=0.2)
    compile_blocks(model)
    model(torch.zeros(2, 3, 32, 32)).main_BYHW.sum().backward()
    assert len(graphs) == 1
    model.eval()
    with torch.no_grad():
        for height in (32, 48, 64, 80):
            model(torch.zeros(1, 3, height, 32))
    assert len(graphs) == 3  # of the first size, and of any


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_student_has_a_graph_for_each_kind_of_block(
    graphs: Graphs, decoder: str, *, narrow: bool
) -> None:
    student = tiny_student(decoder)
    if narrow:
        student.narrow_residual()
    compile_blocks(student)
    _, kept_BK, masked_BM = tiny_batch()
    patches_BKP = torch.zeros(2, kept_BK.shape[1], 48)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            pred_BTD = student(patches_BKP, kept_BK, masked_BM)
        pred_BTD.sum().backward()
    assert len(graphs) == (1 if decoder == "linear" else 2)
