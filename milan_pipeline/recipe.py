"""MILAN's optimiser and learning-rate schedule (arXiv 2208.06049 and its official repository)."""

import math

import torch
from torch import nn

from milan_pipeline.replicas import whole

BASE_BATCH = 256
BETAS = (0.9, 0.95)


def make_optimiser(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """Return fused AdamW with betas (0.9, 0.95).

    Weights of more than one dimension are decayed, the CLS and mask tokens among them, as in the
    official code; biases and norms are not. The learning rate is set anew at each step.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def learning_rate(
    epoch: float,
    *,
    base: float,
    batch: int,
    warmup_epochs: float,
    epochs: float,
    least: float = 0.0,
) -> float:
    """Return the learning rate at a fractional epoch: linear warm-up, then half a cosine.

    Args:
        epoch: how many epochs have passed, fractions included.
        base: learning rate for a batch of 256; scaled linearly with the batch.
        batch: pairs in a global batch.
        warmup_epochs: length of the warm-up.
        epochs: when the rate reaches its least.
        least: rate at the end; it is not scaled. The warm-up starts at 0 all the same.
    """
    return scheduled_rate(
        epoch,
        shape="cosine",
        peak=base * batch / BASE_BATCH,
        warmup_epochs=warmup_epochs,
        epochs=epochs,
        least=least,
    )


def scheduled_rate(
    epoch: float, *, shape: str, peak: float, warmup_epochs: float, epochs: float, least: float
) -> float:
    """Return the learning rate at a fractional epoch, for a schedule of some shape.

    Args:
        epoch: how many epochs have passed, fractions included.
        shape: of the way down: "cosine" (half a period) or "poly" (of power 1: a straight line).
        peak: rate after the warm-up, which starts at 0 and is a straight line.
        warmup_epochs: length of the warm-up.
        epochs: when the rate reaches its least.
        least: rate at the end.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    progress = min(1.0, (epoch - warmup_epochs) / (epochs - warmup_epochs))
    left = 1 - progress if shape == "poly" else 0.5 * (1 + math.cos(math.pi * progress))
    return least + (peak - least) * left


def clip_gradients(model: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale all gradients down to a joint L2 norm of at most `max_norm`; return what it was.

    (Pascanu et al., arXiv 1211.5063, algorithm 1; MILAN itself does not clip.) The norm is over
    all processes, and stays on the device.
    """
    return whole(nn.utils.clip_grad_norm_(model.parameters(), max_norm))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: the rate, times the group's `lr_scale` if it has one.

    As `lr_sched.py` of the official repository does at each step.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
