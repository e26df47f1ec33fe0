"""Tokens between blocks in the type that autocast computes in, rather than in float32.

Under bfloat16 autocast, products are in bfloat16, but norms and what begins in float32 stay in
float32: the residual stream, which each block reads twice and writes twice, and which each norm
keeps for its gradient. Here both are in bfloat16, as in Megatron-LM, whose default it is
(`--fp32-residual-connection` turns it off), and as in timm's norms with `set_fast_norm`.

Legend: X any shape whose last dimension is the width.
"""

import torch
import torch.nn.functional as F
from timm.layers.layer_scale import LayerScale
from timm.layers.norm import LayerNorm as TimmLayerNorm
from timm.layers.norm import RmsNorm
from torch import Tensor, nn


def in_autocast_type(x: Tensor) -> Tensor:
    """Round to the type that autocast computes in; outside autocast, return `x` as it is."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class SameTypeLayerNorm(nn.LayerNorm):
    """A layer norm that returns the type that it is given; statistics are in float32.

    Its weights are rounded to that type, as autocast does with those of linear layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise X of any float type."""
        weight, bias = (
            each if each is None else each.to(x.dtype) for each in (self.weight, self.bias)
        )
        with torch.autocast(x.device.type, enabled=False):  # else a GPU would return float32
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class SameTypeRmsNorm(RmsNorm):
    """The same without a mean."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise X of any float type."""
        with torch.autocast(x.device.type, enabled=False):
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SameTypeLayerScale(LayerScale):
    """A layer scale that returns the type that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale X of any float type."""
        return x * self.gamma.to(x.dtype)


SAME_TYPE: dict[type[nn.Module], type[nn.Module]] = {
    nn.LayerNorm: SameTypeLayerNorm,
    TimmLayerNorm: SameTypeLayerNorm,
    RmsNorm: SameTypeRmsNorm,
    LayerScale: SameTypeLayerScale,
}


def keep_types(model: nn.Module) -> None:
    """Have norms and layer scales inside a model return the type that they are given, in place.

    Parameters and their names stay, and so does what is computed of float32.
    """
    for layer in model.modules():
        layer.__class__ = SAME_TYPE.get(type(layer), type(layer))
