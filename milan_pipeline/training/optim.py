"""MILAN's optimiser and learning-rate schedule (arXiv 2208.06049 and its official repository).

For fine-tuning a ViT, AdamW with layer-wise learning rates: the nearer a layer is to the input, the
smaller its rate. The rule is that of BEiT (arXiv 2106.08254) and MAE (2111.06377): layer 0 turns an
image into tokens, layer i is block i, and layer depth + 1 is all that comes after the blocks; a
layer's learning rate is scaled by decay^(depth + 1 - layer). `timm.optim.param_groups_layer_decay`
differs in one point: the final norm of a ViT that pools by its class token has the rate of the last
block.

There is also a moving average of the weights.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from milan_pipeline.cluster.world import like, own_part, whole

BASE_BATCH = 256
PRETRAINING_BETAS = (0.9, 0.95)


def make_optimiser(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """Return fused AdamW with betas (0.9, 0.95).

    Weights of more than one dimension are decayed, the CLS and mask tokens among them, as in the
    official code; biases and norms are not. The learning rate is set before each step.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=PRETRAINING_BETAS, fused=True)


def learning_rate(
    epoch: float,
    *,
    base: float,
    batch: int,
    warmup_epochs: float,
    epochs: float,
    least: float = 0.0,
) -> float:
    """Return the learning rate at a fractional epoch: a linear warm-up, then half a cosine.

    Args:
        epoch: how many epochs have passed, fractions included.
        base: learning rate for a batch of 256; scaled linearly with the batch.
        batch: pairs in a global batch.
        warmup_epochs: length of the warm-up.
        epochs: when the rate reaches `least`.
        least: rate at the end; it is not scaled. The warm-up starts at 0 nevertheless.
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
    """Return the learning rate at a fractional epoch, for a schedule of a given shape.

    Args:
        epoch: how many epochs have passed, fractions included.
        shape: of the way down: "cosine" (half a period) or "poly" (of power 1: a straight line).
        peak: rate after the warm-up, which starts at 0 and is a straight line.
        warmup_epochs: length of the warm-up.
        epochs: when the rate reaches `least`.
        least: rate at the end.
    """
    if epoch < warmup_epochs:
        return peak * epoch / warmup_epochs
    progress = min(1.0, (epoch - warmup_epochs) / (epochs - warmup_epochs))
    left = 1 - progress if shape == "poly" else 0.5 * (1 + math.cos(math.pi * progress))
    return least + (peak - least) * left


def clip_gradients(model: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale gradients so that their joint L2 norm is at most `max_norm`; return the norm before.

    (Pascanu et al., arXiv 1211.5063, algorithm 1; MILAN itself does not clip.) The norm is over
    all processes, and stays on the device.
    """
    return whole(nn.utils.clip_grad_norm_(model.parameters(), max_norm))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: the rate, times the group's `lr_scale` if it has one.

    `lr_sched.py` of the official repository does the same at each step.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """The recipe of fine-tuning, whatever the task, and how it is computed.

    Attributes:
        batch: samples in a global batch, which the learning rate is scaled to.
        epochs: length of the schedule, fractions included.
        warmup_epochs: of the learning rate.
        base_lr: for the published batch: 256, for segmentation 16.
        min_lr: at the end; like every rate it is scaled by layer.
        layer_decay: see `layer_decay_groups`.
        weight_decay: AdamW's.
        bf16: compute under bfloat16 autocast.
        mean: of the pixels, in [0, 1].
        std: of the pixels, in [0, 1].
        seed: of all random draws.
        gradient_checkpointing: compute blocks again in the backward pass, to save memory.
    """

    batch: int
    epochs: float
    warmup_epochs: float
    base_lr: float
    min_lr: float
    layer_decay: float
    weight_decay: float
    bf16: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    gradient_checkpointing: bool = False


FINETUNING_BETAS = (0.9, 0.999)
STEM = ("cls_token", "reg_token", "dist_token", "pos_embed", "patch_embed.", "norm_pre.")
BLOCKS = "blocks."


def layer_of(name: str, depth: int) -> int:
    """Return the layer, from 0 to depth + 1, of a ViT's parameter by its name in timm."""
    if name.startswith(BLOCKS):
        return int(name.split(".")[1]) + 1
    return 0 if name.startswith(STEM) else depth + 1


def layer_decay_groups(
    model: nn.Module,
    *,
    layer_decay: float,
    weight_decay: float,
    encoder: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Divide the trained parameters into an optimiser's groups, each with its `lr_scale`.

    Weights of more than one dimension are decayed, except tokens and positions, as in the official
    code.

    Args:
        model: all its parameters that require gradients are divided.
        layer_decay: scale of a layer's learning rate, for each layer that comes after it.
        weight_decay: of the groups that are decayed.
        encoder: the ViT in the model; None if the model is the ViT. Other parameters have scale 1.

    Returns:
        Groups of `params`, `weight_decay` and `lr_scale`, those of the first layers first.
    """
    vit: Any = model if encoder is None else encoder
    depth, names = len(vit.blocks), {id(p): name for name, p in vit.named_parameters()}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            name = names.get(id(parameter), "")
            decayed = parameter.ndim > 1 and name not in vit.no_weight_decay()
            groups.setdefault((layer_of(name, depth), decayed), []).append(parameter)
    return [
        {
            "params": groups[layer, decayed],
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": layer_decay ** (depth + 1 - layer),
        }
        for layer, decayed in sorted(groups)
    ]


def fine_tuning_optimiser(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return fused AdamW with betas (0.9, 0.999); the learning rate is set before each step."""
    return torch.optim.AdamW(groups, lr=0.0, betas=FINETUNING_BETAS, fused=True)


WARMUP_POWER = 2 / 3


class MovingAverage:
    """Exponential moving average of the trained parameters.

    After each step, average = decay * average + (1 - decay) * parameter (Polyak averaging as in
    Mean Teacher, arXiv 1703.01780, equation 1). The decay warms up, see `decay_of`.

    Args:
        model: whose parameters are averaged; each process keeps the parts that it holds.
        decay: in [0, 1), after the warm-up.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._average = [parameter.detach().clone() for parameter in self._trained().values()]

    def update(self, step: int) -> None:
        """Add the parameters after a step, counted from 1, to the average."""
        parts = [own_part(parameter) for parameter in self._trained().values()]
        update = get_ema_multi_avg_fn(decay_of(step, self._decay))  # type: ignore[no-untyped-call]
        update([own_part(average) for average in self._average], parts, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's full state with the averages in place of the parameters."""
        return self._model.state_dict() | self._named()

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Set the averages from a state as `state_dict` returns it, of unsharded tensors."""
        with torch.no_grad():
            for name, average in self._named().items():
                average.copy_(like(tensors[name], average))

    def _named(self) -> dict[str, Tensor]:
        return dict(zip(self._trained(), self._average, strict=True))

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}


def decay_of(step: int, most: float) -> float:
    """Return the decay at a step, from 1: min(most, 1 - step^(-2/3)).

    The first step's weights replace the initial ones. With a constant decay, a share of the initial
    weights would stay in the average: 37% after 10,000 steps at 0.9999. (The
    same as `timm.utils.ModelEmaV3` with `use_warmup`, its gamma of 1 and its power of 2/3; the
    decay reaches 0.99 at step 1,000 and 0.999 at step 31,623.)

    Args:
        step: counted from 1.
        most: the decay after the warm-up.
    """
    return min(most, 1 - math.pow(step, -WARMUP_POWER))
