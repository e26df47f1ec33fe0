"""A moving average of the student's weights, kept beside them."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from milan_pipeline.replicas import like, own_part


class MovingAverage:
    """Exponential moving average of the trained parameters, from their first values on.

    After each step, average = decay * average + (1 - decay) * parameter (Polyak averaging as in
    Mean Teacher, arXiv 1703.01780, equation 1).

    Args:
        model: whose parameters are averaged; each process keeps the parts that it holds.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average = [parameter.detach().clone() for parameter in self._trained().values()]

    def update(self) -> None:
        """Take in the parameters of the step that was just taken."""
        parts = [own_part(parameter) for parameter in self._trained().values()]
        self._update([own_part(average) for average in self._average], parts, 0)

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
