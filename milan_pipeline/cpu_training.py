"""What makes training on a CPU faster, and changes nothing but rounding."""

from torch import nn

from milan_pipeline.attention import spell_out_attention
from milan_pipeline.devices import keep_freed_memory
from milan_pipeline.linear import onednn_is_faster, use_onednn


def suit_cpu(model: nn.Module, *, bf16: bool) -> None:
    """Have a model compute by what is fastest on this CPU, and keep memory that it frees.

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
