"""Linear probing: `probe --linear official` on given features, in a given order.

Legend: B batch, F features, S steps.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity_cases.case import Case, Deviation, largest, most_relative, moved
from milan_pipeline.evaluate.probe.linear_official import (
    make_lars,
    official_model,
    official_steps,
    peak_rate,
)
from milan_pipeline.evaluate.probe.protocols import OfficialLinear

STATISTICS = {"0.running_mean": 0.0, "0.running_var": 1.0}
"""Where BatchNorm's begin."""


def compare(case: Case) -> Iterator[Deviation]:
    """Yield a deviation for rates, losses, test logits, momentum and everything that has moved.

    Raises:
        DataError: the case has weight decay or accumulation, which our protocol does not have.
    """
    case.require(weight_decay=0.0, accum_iter=1, min_lr=0.0)
    settings = case.settings
    model = _model(case)
    head: Any = model[1]
    optimiser, rates = make_lars(head), []
    optimiser.register_step_pre_hook(lambda made, *_: rates.append(_rate_of(made)))
    protocol = OfficialLinear(
        epochs=settings["epochs"],
        warmup_epochs=settings["warmup_epochs"],
        batch=settings["batch"],
        base_rate=settings["blr"],
    )
    steps, rows_SB = settings["steps_per_epoch"], case.io["rows"]

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows_B in rows_SB[epoch * steps : (epoch + 1) * steps]:
            yield case.io["features"][rows_B], case.io["labels"][rows_B]

    peak = peak_rate(protocol, batch=rows_SB.shape[1], width=head.in_features)
    trained = official_steps(
        model.train(), optimiser, batches, protocol=protocol, peak=peak, steps=steps
    )
    losses = list(trained)
    own_S = torch.tensor(rates, dtype=torch.float64)
    yield most_relative("rates", case.out["lr"], own_S, case.tolerance("lr"))
    yield largest("losses", case.out["loss"], torch.stack(losses), case.tolerance("loss"))
    for name, parameter in head.named_parameters():
        official, start = case.out[f"momentum.{name}"], torch.zeros_like(parameter)
        momentum = optimiser.state[parameter]["momentum_buffer"]
        yield moved(f"momentum of {name}", start, official, momentum, case.tolerance(name))
    if "test_features" in case.io and "test_logits" in case.out:
        with torch.no_grad():
            logits_NY = model.eval()(case.io["test_features"])
        allowed = case.tolerance("test_logits")
        yield largest("test logits", case.out["test_logits"], logits_NY, allowed)
    yield from _ends(case, model)


def _model(case: Case) -> nn.Sequential:
    """Return our classifier with the case's first weights."""
    weight = case.state["head.1.weight"]
    model = official_model(nn.Linear(weight.shape[1], weight.shape[0]))
    model[1].load_state_dict({n: case.state[f"head.1.{n}"] for n in ("weight", "bias")})
    return model


def _rate_of(optimiser: torch.optim.Optimizer) -> float:
    """Return the rate that all groups have; NaN if they differ."""
    rates = {group["lr"] for group in optimiser.param_groups}
    return float(rates.pop()) if len(rates) == 1 else float("nan")


def _ends(case: Case, model: nn.Sequential) -> Iterator[Deviation]:
    """Compare the classifier's weights and statistics with the official ones at the end."""
    own = model.state_dict()
    for name, official in case.final.items():
        ours = own[name.removeprefix("head.")].detach()
        kind = name.split(".")[-1]
        if kind == "num_batches_tracked":
            yield largest(name, official, ours, 0.0)
            continue
        first = STATISTICS.get(name.removeprefix("head."))
        start = case.state[name] if first is None else torch.full_like(official, first)
        yield moved(name, start, official, ours, case.tolerance(kind))
