"""Run transformer blocks one after another, with or without keeping what they compute.

Legend: B batch, N tokens, C width.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
