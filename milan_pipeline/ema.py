"""A moving average of the student's weights, kept beside them."""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from milan_pipeline.replicas import like, own_part

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
        """Take in the parameters of the step that was just taken, counted from 1."""
        parts = [own_part(parameter) for parameter in self._trained().values()]
        update = get_ema_multi_avg_fn(decay_of(step, self._decay))  # type: ignore[no-untyped-call]
        update([own_part(average) for average in self._average], parts, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's whole state with the averages in place of the parameters."""
        return self._model.state_dict() | self._named()

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take the averages from such a state, of whole tensors."""
        with torch.no_grad():
            for name, average in self._named().items():
                average.copy_(like(tensors[name], average))

    def _named(self) -> dict[str, Tensor]:
        return dict(zip(self._trained(), self._average, strict=True))

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._model.named_parameters() if p.requires_grad}


def decay_of(step: int, most: float) -> float:
    """Return the decay at a step, from 1: min(most, 1 - step^(-2/3)).

    The first step's weights replace those that were drawn, which a constant decay would keep a
    share of: 37% after 10,000 steps at 0.9999. (`timm.utils.ModelEmaV3` with `use_warmup`, its
    gamma of 1 and its power of 2/3; 0.99 is reached at step 1,000, 0.999 at 31,623.)

    Args:
        step: that was taken, from 1.
        most: the decay after the warm-up.
    """
    return min(most, 1 - math.pow(step, -WARMUP_POWER))
