"""Linear layers by the matrix product that suits the CPU: oneDNN's instead of MKL's.

On AMD CPUs MKL leaves some of the machine unused: at the shapes of a student's step in float32, two
Zen 4 cores reach 146 to 187 GFLOP/s in it and 189 to 204 in oneDNN for the product itself and for
the gradient of its input (torch 2.15); for the gradient of the weight MKL is the faster. torch
takes oneDNN for lower precisions and in compiled inference alone, hence the operator here.

Legend: N rows (tokens of a batch), I inputs, O outputs.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@torch.library.custom_op("milan_pipeline::product", mutates_args=())
def product(left_NI: Tensor, right_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return left @ right^T + bias, (N, O), through oneDNN.

    Args:
        left_NI: float32 on the CPU, of any strides, as the next.
        right_OI: likewise.
        bias_O: likewise, or None.
    """
    found: Tensor = torch.ops.mkldnn._linear_pointwise(  # what torch compiles to
        left_NI, right_OI, bias_O, "none", [], ""
    )
    return found


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
