"""The linear protocol of MILAN's repository, which is MAE's (arXiv 2111.06377, appendix A.1).

BatchNorm without affine parameters and a linear layer, trained by LARS (arXiv 1708.03888) for 100
epochs of batch 16384. The official code augments each image anew in each epoch. Here an epoch
trains on one of a few views whose features are cached; by default, on the evaluation view.

LARS is timm's. As in the official code, the step of the matrix is relative to its weights. timm
does so for weights without decay only if `always_adapt` is set. The bias is trained by plain SGD.

Legend: N samples, B samples at a time, F features, Y classes.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from timm.optim.lars import Lars
from torch import Tensor, nn

from milan_pipeline.core.device_copies import rows_on
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.evaluate.probe.classifiers import (
    MOMENTUM,
    TrainingSet,
    draw_head,
    numbered,
    require_any,
    require_finite,
    shuffled_batches,
)
from milan_pipeline.evaluate.probe.features import Features, Labels
from milan_pipeline.evaluate.probe.protocols import (
    BASE_BATCH,
    BASE_RATE,
    BATCH,
    LARGE_BASE_RATE,
    LARGE_WIDTH,
    OfficialLinear,
)
from milan_pipeline.training.optim import learning_rate, set_learning_rate

TRUST = 0.001
NORM_EPS = 1e-6
TEST_CHUNK = 4096


def peak_rate(protocol: OfficialLinear, *, batch: int, width: int) -> float:
    """Return the learning rate after warm-up, for a batch and F = `width` features."""
    published = LARGE_BASE_RATE if width >= LARGE_WIDTH else BASE_RATE
    base = published if protocol.base_rate is None else protocol.base_rate
    return base * (BATCH if protocol.batch is None else batch) / BASE_BATCH


def make_lars(head: nn.Linear) -> torch.optim.Optimizer:
    """Return LARS as the official code has it; the learning rate is set anew at each step."""
    groups = [{"params": [head.weight], "always_adapt": True}, {"params": [head.bias]}]
    lars: torch.optim.Optimizer = Lars(groups, lr=0.0, momentum=MOMENTUM, trust_coeff=TRUST)
    return lars


def official_answers(train: TrainingSet, test_NF: Features, protocol: OfficialLinear) -> Labels:
    """Train the official linear classifier and have it classify others.

    Args:
        train: the training set.
        test_NF: features to classify.
        protocol: how to train.

    Returns:
        The label given to each test sample; the same on each call.

    Raises:
        ConfigError: the batch has no statistics.
        DataError: there are no samples, the training labels are all the same, or the training has
            diverged.
    """
    require_any(test_NF)
    classes_Y, class_N = numbered(train.labels_N)
    width, device = test_NF.shape[1], torch.device(protocol.device)
    head = draw_head(width, len(classes_Y), seed=protocol.seed)
    model = official_model(head).to(device)
    batch = protocol.batch_of(len(class_N))
    steps = len(class_N) // batch

    trained = official_steps(
        model,
        make_lars(head),
        functools.partial(batches_of, train, class_N, protocol),
        protocol=protocol,
        peak=peak_rate(protocol, batch=batch, width=width),
        steps=steps,
    )
    with progress_bar("linear: official", total=protocol.epochs * steps) as bar:
        for _ in trained:
            bar.update(1)
    require_finite(head, "--linear-lr")
    return classes_Y[_classify(model.eval(), test_NF, device)]


def batches_of(
    train: TrainingSet, class_N: Tensor, protocol: OfficialLinear, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch's batches: features (B, F) and classes (B,), on the protocol's device."""
    device, features_NF = torch.device(protocol.device), train.of_epoch(epoch)
    rows, batch = np.arange(len(class_N)), protocol.batch_of(len(class_N))
    for rows_B in shuffled_batches(rows, batch, seed=protocol.seed, epoch=epoch):
        yield rows_on(device, features_NF, rows_B), rows_on(device, class_N, rows_B)


def official_model(head: nn.Linear) -> nn.Sequential:
    """Put BatchNorm without affine parameters before a linear layer: features to logits."""
    return nn.Sequential(nn.BatchNorm1d(head.in_features, affine=False, eps=NORM_EPS), head)


def official_steps(
    model: nn.Sequential,
    optimiser: torch.optim.Optimizer,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    *,
    protocol: OfficialLinear,
    peak: float,
    steps: int,
) -> Iterator[Tensor]:
    """Train, and yield the loss of each step once it is taken; not to be left before the end.

    Args:
        model: of `official_model`, on its device.
        optimiser: of `make_lars`.
        batches: returns an epoch's batches: features (B, F) and classes (B,) on the device.
        protocol: epochs and warm-up.
        peak: learning rate after the warm-up.
        steps: batches in an epoch.
    """
    for epoch in range(protocol.epochs):
        for step, (features_BF, class_B) in enumerate(batches(epoch)):
            rate = learning_rate(
                epoch + step / steps,
                base=peak,
                batch=BASE_BATCH,
                warmup_epochs=protocol.warmup_epochs,
                epochs=protocol.epochs,
            )
            set_learning_rate(optimiser, rate)
            loss = nn.functional.cross_entropy(model(features_BF), class_B)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            yield loss.detach()


@torch.no_grad()
def _classify(model: nn.Module, test_NF: Features, device: torch.device) -> Labels:
    chunks = torch.split(torch.from_numpy(test_NF), TEST_CHUNK)
    answers = [model(chunk.to(device)).argmax(dim=1) for chunk in chunks]
    answers_N: Labels = torch.cat(answers).cpu().numpy()
    return answers_N
