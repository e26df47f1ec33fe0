"""What the attention blocks of encoder and decoders share: first weights, and how they run.

Legend: B batch, N tokens, C width.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-6
TOKEN_STD = 0.02


def init_linear_and_norm(module: nn.Module) -> None:
    """Give every linear layer of `module` Xavier-uniform weights and zero biases, in place.

    Layer norms become the identity (weight 1, bias 0). (MILAN's recipe, as in MAE.)
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def run_blocks(
    blocks: Iterable[nn.Module], x_BNC: Tensor, *context: Tensor, checkpointed: bool
) -> Tensor:
    """Pass tokens through blocks, each called as `block(x_BNC, *context)`.

    Args:
        blocks: each returns what the next one takes.
        x_BNC: float.
        context: what each block also takes.
        checkpointed: forget what is inside the blocks and compute it again for the gradient
            (gradient checkpointing, arXiv 1604.06174): less memory, a third more arithmetic.
    """
    for block in blocks:
        if checkpointed:
            x_BNC = checkpoint(block, x_BNC, *context, use_reentrant=False)
        else:
            x_BNC = block(x_BNC, *context)
    return x_BNC
