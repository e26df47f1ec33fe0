"""Tokens between blocks in bfloat16: in every block of every kind of encoder and decoder."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from milan_pipeline.models.baseline_decoders import DECODERS
from milan_pipeline.models.residual import SameTypeLayerNorm
from milan_pipeline.models.student import Student, patchify
from tests.support.students import gradients, take, tiny_batch, tiny_student

FAMILIES = (
    "vit_base_patch16_224",
    "vit_small_patch14_reg4_dinov2",  # register tokens, layer scale
    "vit_base_patch16_clip_224",  # norm before the blocks
    "beit3_base_patch16_224",  # norms within attention and MLP
    "vit_large_patch14_xp_224",  # parallel blocks, RMS norms, of queries and keys too
)
BF16 = torch.bfloat16
Types = set[torch.dtype]


def predicted(student: Student, *, autocast: bool = True) -> Tensor:
    images, kept_BK, masked_BM = tiny_batch()
    with torch.autocast("cpu", BF16, enabled=autocast):
        pred_BTD: Tensor = student(take(patchify(images, 4), kept_BK), kept_BK, masked_BM)
    return pred_BTD


def blocks_of(student: Student) -> list[nn.Module]:
    return [*student.encoder.blocks, *getattr(student.decoder, "blocks", [])]


def types_between_blocks(student: Student) -> Types:
    found: Types = set()

    def note(block: nn.Module, given: tuple[Any, ...], returned: Tensor) -> None:
        del block
        found.update(tensor.dtype for tensor in (*given, returned))

    for block in blocks_of(student):
        block.register_forward_hook(note)
    predicted(student)
    return found


@pytest.mark.filterwarnings("ignore:Mismatch dtype:UserWarning")  # of plain RMS norms on CPUs
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_between_blocks_are_in_bfloat16_where_that_is_asked_for(
    name: str, decoder: str
) -> None:
    plain, narrow = tiny_student(decoder, name=name), tiny_student(decoder, name=name)
    narrow.narrow_residual()
    assert types_between_blocks(plain) == {torch.float32}
    assert types_between_blocks(narrow) == {BF16}
    assert list(narrow.state_dict()) == list(plain.state_dict())


def test_predictions_are_others_but_close_and_all_weights_learn() -> None:
    plain, narrow = tiny_student(), tiny_student()
    narrow.narrow_residual()
    wanted, got = predicted(plain), predicted(narrow)
    assert not torch.equal(got, wanted)
    torch.testing.assert_close(got, wanted, atol=0.05, rtol=0.05)
    got.float().square().sum().backward()
    found = gradients(narrow)
    assert found.keys() == {n for n, p in narrow.named_parameters() if p.requires_grad}
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_without_autocast_nothing_changes(name: str) -> None:
    plain, narrow = tiny_student(name=name), tiny_student(name=name)
    narrow.narrow_residual()
    assert torch.equal(predicted(narrow, autocast=False), predicted(plain, autocast=False))


def test_statistics_of_a_norm_are_in_float32() -> None:
    norm = SameTypeLayerNorm(64)
    x = (torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) + 100).to(BF16)
    with torch.autocast("cpu", BF16):
        got = norm(x)
    assert torch.equal(got, nn.LayerNorm(64)(x.float()).to(BF16))


def test_a_norm_keeps_two_bytes_less_of_each_channel_for_its_gradient() -> None:
    plain, narrow = tiny_student("linear"), tiny_student("linear")
    narrow.narrow_residual()
    images, kept_BK, masked_BM = tiny_batch()
    tokens = len(images) * (1 + kept_BK.shape[1] + masked_BM.shape[1])
    norms = sum(isinstance(module, nn.LayerNorm) for module in plain.modules())
    less = kept_bytes(lambda: predicted(plain)) - kept_bytes(lambda: predicted(narrow))
    assert less >= 2 * plain.encoder.embed_dim * tokens * norms


def kept_bytes(run: Callable[[], object]) -> int:
    """Return the size of what is kept for gradients."""
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())
