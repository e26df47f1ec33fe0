"""The attentive probe: one learned query attends to an image's patches, a linear layer classifies.

It asks what the patches of a frozen encoder know together, without asking that their mean or a
class token has been taught to say it. The head is that of AIM (arXiv 2401.08541, section 4.2), as
in CAE (2202.03026): BatchNorm without affine parameters, cross-attention of one query, whose keys
and values are two matrices without bias, and a linear layer. Training is that of V-JEPA's frozen
evaluation (2404.08471 and its repository's configuration): AdamW with a decay of 0.001, 20 epochs,
cosine to 0 without warm-up. They show random crops; here all epochs show the evaluation view. The
rate is chosen among some on a tenth of the training images, then a probe is trained on all of them.

With one query, neither keys nor values of each patch are needed. A score is q·(K x) = (Kᵀq)·x, so
the query goes through K once; and the values' mean is V times the mean of the patches.

Legend: N images, B images of a batch, L patches, E width, H heads, D = E / H, Y classes, R rates.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from milan_pipeline.core.device_copies import rows_on
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.classifiers import (
    draw_head,
    held_out,
    numbered,
    require_any,
    shuffled_batches,
)
from milan_pipeline.evaluate.probe.features import Labels
from milan_pipeline.evaluate.probe.patches import Patches
from milan_pipeline.evaluate.probe.protocols import Attentive

HEAD_WIDTH = 64
NORM_EPS = 1e-6
QUERY_STD = 0.02
WEIGHT_DECAY, BETAS = 1e-3, (0.9, 0.999)
SCORED_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rate did best, and its per cent on the held-out tenth (None of a single rate)."""

    rate: float
    held_out: float | None
    heads: int


class AttentiveHead(nn.Module):
    """Cross-attention of one query, and a linear layer.

    Args:
        width: E.
        classes: Y.
        heads: H, which divides E.
        seed: of the first weights; torch's global random state is left as it was.
    """

    def __init__(self, width: int, classes: int, heads: int, *, seed: int) -> None:
        super().__init__()
        self._heads, side = heads, width // heads
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query_HD = nn.Parameter(torch.randn(heads, side) * QUERY_STD)
            self.key = nn.Linear(width, width, bias=False)
            self.value = nn.Linear(width, width, bias=False)
        self.linear = draw_head(width, classes, seed=seed)

    def forward(self, patches_BLE: Tensor) -> Tensor:
        """Return logits (B, Y)."""
        key_HDE, value_HDE = (
            layer.weight.view(self._heads, -1, layer.in_features)
            for layer in (self.key, self.value)
        )
        query_HE = torch.einsum("hd,hde->he", self.query_HD, key_HDE)
        score_BHL = torch.einsum("he,ble->bhl", query_HE, patches_BLE)
        share_BHL = (score_BHL / math.sqrt(self.query_HD.shape[1])).softmax(dim=-1)
        mean_BHE = share_BHL @ patches_BLE
        pooled_BHD = torch.einsum("bhe,hde->bhd", mean_BHE, value_HDE)
        logits_BY: Tensor = self.linear(pooled_BHD.flatten(1))
        return logits_BY


class AttentiveProbes(nn.Module):
    """A head for each rate, on patches that are normed once for all of them."""

    def __init__(self, width: int, classes: int, rates: int, *, seed: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=NORM_EPS)
        # Every rate begins with the same weights.
        heads = heads_of(width)
        self.heads = nn.ModuleList(
            AttentiveHead(width, classes, heads, seed=seed) for _ in range(rates)
        )

    def forward(self, patches_BLE: Tensor) -> list[Tensor]:
        """Return each head's logits (B, Y)."""
        normed_BLE = self.norm(patches_BLE.flatten(0, 1)).view_as(patches_BLE)
        return [head(normed_BLE) for head in self.heads]


def heads_of(width: int) -> int:
    """Return how many heads attend: 64 wide, or a little wider where 64 does not divide."""
    return max(count for count in range(1, max(1, width // HEAD_WIDTH) + 1) if width % count == 0)


def choose_rate(train: Patches, protocol: Attentive) -> Choice:
    """Try each rate on nine tenths of the images; of equally good ones take the smallest.

    Args:
        train: images to train on; a tenth of them is held out for the choice.
        protocol: how to train.

    Raises:
        DataError: the images are too few to hold any out, or every probe has diverged.
        InterruptedRunError: a stop was asked for.
    """
    labels_N, heads = train.labels, heads_of(train.shape[1])
    if len(protocol.rates) == 1:
        return Choice(rate=protocol.rates[0], held_out=None, heads=heads)
    classes_Y, _ = numbered(labels_N)
    rows_N, held_N = np.arange(len(labels_N)), held_out(labels_N)
    if not held_N.any():
        raise DataError(
            f"{len(labels_N)} training images are too few to hold a tenth out for the "
            "attentive probe; give more, or one --attentive-lr"
        )
    tried = train_probes(train, rows_N[~held_N], protocol.rates, protocol)
    answers = [classes_Y[each] for each in _classify(tried, train, rows_N[held_N])]
    sound = [_is_finite(head) for head in tried.heads]
    scores = {
        rate: accuracy(answer, labels_N[held_N])
        for rate, answer, is_sound in zip(protocol.rates, answers, sound, strict=True)
        if is_sound
    }
    if not scores:
        raise DataError("every attentive probe has diverged; give lower --attentive-lr")
    best = max(sorted(scores), key=lambda rate: scores[rate])
    return Choice(rate=best, held_out=scores[best], heads=heads)


def attentive_answers(
    train: Patches, test: Patches, protocol: Attentive, choice: Choice | None = None
) -> tuple[Labels, Choice]:
    """Train an attentive probe by the chosen rate, and have it classify other images.

    Args:
        train: images to train on.
        test: images to classify.
        protocol: how to train.
        choice: what `choose_rate` returned; None calls it.

    Returns:
        The label given to each image of `test`, and what was chosen.

    Raises:
        DataError: there are no images, the training labels are all the same, or the probe has
            diverged; and as `choose_rate` does.
        InterruptedRunError: a stop was asked for.
    """
    require_any(test.labels)
    classes_Y, _ = numbered(train.labels)
    choice = choose_rate(train, protocol) if choice is None else choice
    final = train_probes(train, np.arange(len(train.labels)), (choice.rate,), protocol)
    if not _is_finite(final):
        raise DataError(
            f"the attentive probe has diverged; give an --attentive-lr below {choice.rate:g}"
        )
    (answers_N,) = _classify(final, test, np.arange(len(test.labels)))
    return classes_Y[answers_N], choice


def train_probes(
    train: Patches, rows: NDArray[np.int64], rates: Sequence[float], protocol: Attentive
) -> AttentiveProbes:
    """Train a probe for each rate on the same batches of some images; return them, in eval mode."""
    classes_Y, class_N = numbered(train.labels)
    model = AttentiveProbes(train.shape[1], len(classes_Y), len(rates), seed=protocol.seed)
    model.to(train.device)
    groups = [
        {"params": list(head.parameters()), "lr": rate, "peak": rate}
        for head, rate in zip(model.heads, rates, strict=True)
    ]
    optimiser = torch.optim.AdamW(groups, betas=BETAS, weight_decay=WEIGHT_DECAY)
    batch = protocol.batch_of(len(rows))
    total = protocol.epochs * (len(rows) // batch)

    def order() -> Iterator[Tensor]:
        for epoch in range(protocol.epochs):
            yield from shuffled_batches(rows, batch, seed=protocol.seed, epoch=epoch)

    with (
        contextlib.closing(train.batches(order)) as batches,
        progress_bar("attentive probe", total=total) as bar,
    ):
        for step, (patches_BLE, rows_B) in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * (1 + math.cos(math.pi * step / total)) / 2
            truth_B = rows_on(train.device, class_N, rows_B)
            # Each rate's head has parameters of its own, and so the gradients of its own loss.
            logits = model(patches_BLE)
            loss = torch.stack([nn.functional.cross_entropy(each, truth_B) for each in logits])
            optimiser.zero_grad()
            torch.autograd.backward(loss.sum())
            optimiser.step()
            bar.update(1)
    return model.eval()


@torch.no_grad()
def _classify(
    model: AttentiveProbes, source: Patches, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return each probe's answers as places among the classes, (R, N)."""
    parts = torch.split(torch.from_numpy(rows), SCORED_AT_ONCE)
    with contextlib.closing(source.batches(lambda: parts)) as batches:
        answers = [
            torch.stack([logits_BY.argmax(dim=1) for logits_BY in model(patches_BLE)]).cpu()
            for patches_BLE, _ in batches
        ]
    answers_RN: NDArray[np.int64] = torch.cat(answers, dim=1).numpy()
    return answers_RN


def _is_finite(model: nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())
