"""Attention and linear layers by the kernel that is fastest on the device; only rounding differs.

On AMD CPUs, MKL does not use the whole machine: at the shapes of a student's step in float32, two
Zen 4 cores reach 146 to 187 GFLOP/s with MKL and 189 to 204 with oneDNN, for the product and for
the gradient of its input (torch 2.15). For the gradient of the weight, MKL is faster. torch uses
oneDNN only for lower precisions and in compiled inference, so this module has its own operator.

Legend: B batch, N tokens (or keys, or rows of a product), H heads, M queries, d channels of a head,
I inputs, O outputs.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from milan_pipeline.core.devices import keep_freed_memory


def attention(q_BHMd: Tensor, k_BHNd: Tensor, v_BHNd: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, with torch's fused kernel wherever that is faster.

    For bfloat16 on a CPU it is not: at the sizes of a student's decoder (147 queries, 197 keys, 32
    channels) forward and backward took 39 ms in the fused kernel, 26 ms in torch's unfused one and
    11 ms spelled out (two cores with AVX-512 bf16, torch 2.15).

    Args:
        q_BHMd: float queries.
        k_BHNd: keys, of the same type.
        v_BHNd: values, of the same type.

    Returns:
        (B, H, M, d), of the same type.
    """
    if not (q_BHMd.device.type == "cpu" and q_BHMd.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q_BHMd, k_BHNd, v_BHNd)
    # Autocast would take the softmax to float32 and back; in bfloat16 it sums in float32 anyway.
    with torch.autocast("cpu", enabled=False):
        scaled_BHMd = q_BHMd * q_BHMd.shape[-1] ** -0.5
        weights_BHMN: Tensor = (scaled_BHMd @ k_BHNd.transpose(-2, -1)).softmax(dim=-1)
        return weights_BHMN @ v_BHNd


def spell_out_attention(module: nn.Module) -> None:
    """Make every timm attention inside `module` use the unfused kernel, in place."""
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.fused_attn = False  # type: ignore[misc]  # final for TorchScript alone


@torch.library.custom_op("milan_pipeline::product", mutates_args=())
def product(left_NI: Tensor, right_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return left @ right^T + bias, (N, O), through oneDNN.

    Args:
        left_NI: float32 on the CPU, of any strides.
        right_OI: float32 on the CPU, of any strides.
        bias_O: float32 on the CPU, of any strides; None adds nothing.
    """
    product_NO: Tensor = torch.ops.mkldnn._linear_pointwise(  # what torch compiles to
        left_NI, right_OI, bias_O, "none", [], ""
    )
    return product_NO


@product.register_fake
def _shape(left_NI: Tensor, right_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    del bias_O
    return left_NI.new_empty(len(left_NI), len(right_OI))


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    del output
    ctx.save_for_backward(inputs[0], inputs[1])


def _gradients(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
    left_NI, right_OI = ctx.saved_tensors
    to_left, to_right, to_bias = ctx.needs_input_grad
    return (
        product(grad_NO, right_OI.t(), None) if to_left else None,
        grad_NO.t() @ left_NI if to_right else None,
        grad_NO.sum(dim=0) if to_bias else None,
    )


product.register_autograd(_gradients, setup_context=_remember)


class OneDnnLinear(nn.Linear):
    """A linear layer whose products go through oneDNN; float32 on the CPU only."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        rows_NO: Tensor = product(x.flatten(0, -2), self.weight, self.bias)
        return rows_NO.view(*x.shape[:-1], self.out_features)


def use_onednn(module: nn.Module) -> None:
    """Turn every plain linear layer inside `module` into one that uses oneDNN, in place.

    Parameters, their names and what is computed stay the same, up to rounding.
    """
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear


def onednn_is_faster() -> bool:
    """Tell whether this CPU is one whose float32 products oneDNN does faster than MKL: AMD's."""
    cpus = Path("/proc/cpuinfo")
    has_onednn = bool(torch.backends.mkldnn.enabled)
    return has_onednn and cpus.exists() and "AuthenticAMD" in cpus.read_text(encoding="utf-8")


def suit_cpu(model: nn.Module, *, bf16: bool) -> None:
    """Make a model use the kernels that are fastest on this CPU, and keep memory that it frees.

    A model on another device is left as it is.

    Args:
        model: changed in place; parameters and their names stay.
        bf16: whether it is to compute under bfloat16 autocast.
    """
    if next(model.parameters()).device.type != "cpu":
        return
    keep_freed_memory()
    if bf16:
        spell_out_attention(model)
    elif onednn_is_faster():
        use_onednn(model)
