"""DINOv2's linear protocol: tries many learning rates and kinds of features, and takes the best.

(arXiv 2304.07193, appendix B.3, and its repository's linear evaluation.) SGD without decay, 12,500
steps of batch 1024 for any set, cosine to 0, 13 rates. Their grid also has one or four last blocks,
with or without the mean of the patches; ours has the kinds of features that are cached. They choose
on the images that they report. Here a tenth of the training set is held out for the choice, and the
chosen classifier is then trained on all of it.

Without decay, SGD is linear in its rate: multiplying the loss by a rate has the same effect as that
rate. So the classifiers of one kind of features are one matrix, trained on the sum of their losses,
each multiplied by its rate.

Legend: N samples, B samples at a time, F features, R rates, Y classes.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from milan_pipeline.core.device_copies import rows_on
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.classifiers import (
    MOMENTUM,
    TrainingSet,
    draw_head,
    held_out,
    numbered,
    require_any,
    require_finite,
    shuffled_batches,
)
from milan_pipeline.evaluate.probe.features import Features, Labels
from milan_pipeline.evaluate.probe.protocols import BASE_BATCH, Sweep

TEST_CHUNK = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which classifier did best: its features, its rate, and its per cent on the held-out tenth."""

    pool: str
    rate: float
    held_out: float


def sweep_answers(
    train: Mapping[str, TrainingSet],
    central: Mapping[str, Features],
    test: Mapping[str, Features],
    protocol: Sweep,
) -> tuple[Labels, Choice]:
    """Train a classifier for each kind of features and rate; have the best one classify others.

    Args:
        train: training sets by kind of features; of the same samples and labels.
        central: features of the evaluation view of the same samples, (N, F) by kind, to choose on.
        test: features to classify, (N, F) by kind.
        protocol: how to train.

    Returns:
        The label given to each test sample, the same on each call, and what was chosen; of
        equally good ones the first kind and the smallest rate.

    Raises:
        DataError: there are no samples, too few to hold any out, or the training labels, held-out
            ones aside, are all the same.
    """
    for test_NF in test.values():
        require_any(test_NF)
    labels_N = next(iter(train.values())).labels_N
    held_N = held_out(labels_N)
    if not held_N.any():
        raise DataError(
            f"{len(labels_N)} training samples are too few to hold a tenth out for the sweep; "
            "give more, or --linear logistic"
        )
    _ = numbered(labels_N[~held_N])  # the rest must have two classes, too
    classes_Y, _ = numbered(labels_N)
    tried = train_heads(train, np.flatnonzero(~held_N), protocol.rates, protocol)
    choices = [
        Choice(pool=pool, rate=rate, held_out=accuracy(classes_Y[answers_N], labels_N[held_N]))
        for pool, head in tried.items()
        for rate, answers_N, sound in zip(
            protocol.rates,
            _classify(head, central[pool][held_N], len(classes_Y)),
            head.weight.view(len(protocol.rates), -1).isfinite().all(dim=1).tolist(),
            strict=True,
        )
        if sound  # the answers of weights that are not finite are all the same
    ]
    if not choices:
        raise DataError("every classifier of the sweep has diverged; give lower --sweep-lr")
    best = max(choices, key=lambda choice: choice.held_out)
    alone = {best.pool: train[best.pool]}
    final = train_heads(alone, np.arange(len(labels_N)), (best.rate,), protocol)[best.pool]
    require_finite(final, "--sweep-lr")
    return classes_Y[_classify(final, test[best.pool], len(classes_Y))[0]], best


def train_heads(
    train: Mapping[str, TrainingSet],
    rows: NDArray[np.int64],
    rates: Sequence[float],
    protocol: Sweep,
) -> dict[str, nn.Linear]:
    """Train every rate's classifier on each kind of features; they lie side by side in a layer."""
    classes_Y, class_N = numbered(next(iter(train.values())).labels_N)
    device, batch = torch.device(protocol.device), min(protocol.batch, len(rows))
    rate_R = torch.tensor(rates, device=device) * (batch / BASE_BATCH)
    heads = {
        # Every rate begins with the same weights.
        pool: _repeated(
            draw_head(training.of_epoch(0).shape[1], len(classes_Y), seed=protocol.seed), len(rates)
        ).to(device)
        for pool, training in train.items()
    }
    parameters = [parameter for head in heads.values() for parameter in head.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=1.0, momentum=MOMENTUM)
    batches = batches_of(train, class_N, rows, protocol)
    with progress_bar("linear: sweep", total=protocol.steps) as bar:
        for step, (features, truth_B) in zip(range(protocol.steps), batches, strict=False):
            optimiser.param_groups[0]["lr"] = (1 + math.cos(math.pi * step / protocol.steps)) / 2
            loss = torch.zeros((), device=device)
            for pool, head in heads.items():
                loss = loss + _losses(head(features[pool]), truth_B, len(rates)) @ rate_R
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            bar.update(1)
    return heads


def batches_of(
    train: Mapping[str, TrainingSet], class_N: Tensor, rows: NDArray[np.int64], protocol: Sweep
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield batches without end: features (B, F) by kind and classes (B,), on the device."""
    device, batch = torch.device(protocol.device), min(protocol.batch, len(rows))
    for epoch in itertools.count():
        features = {pool: training.of_epoch(epoch) for pool, training in train.items()}
        for rows_B in shuffled_batches(rows, batch, seed=protocol.seed, epoch=epoch):
            given = {pool: rows_on(device, each_NF, rows_B) for pool, each_NF in features.items()}
            yield given, rows_on(device, class_N, rows_B)


def _repeated(head: nn.Linear, times: int) -> nn.Linear:
    """Return a layer of so many copies of a layer side by side."""
    wide = nn.Linear(head.in_features, head.out_features * times)
    wide.load_state_dict({"weight": head.weight.repeat(times, 1), "bias": head.bias.repeat(times)})
    return wide


def _losses(logits: Tensor, truth_B: Tensor, rates: int) -> Tensor:
    """Return each classifier's mean cross entropy, (R,), from logits (B, R * Y)."""
    # A row each: softmax is quicker over classes that are neighbours in memory.
    each = logits.view(len(logits) * rates, -1), truth_B.repeat_interleave(rates)
    return nn.functional.cross_entropy(*each, reduction="none").view(-1, rates).mean(dim=0)


@torch.no_grad()
def _classify(head: nn.Linear, features_NF: Features, classes: int) -> Labels:
    """Return each classifier's answers as places among the classes, (R, N)."""
    device = head.weight.device
    chunks = torch.split(torch.from_numpy(features_NF), TEST_CHUNK)
    answers = [head(c.to(device)).view(len(c), -1, classes).argmax(dim=2).T for c in chunks]
    answers_RN: Labels = torch.cat(answers, dim=1).cpu().numpy()
    return answers_RN
