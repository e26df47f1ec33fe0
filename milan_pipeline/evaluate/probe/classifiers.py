"""Logistic regression on frozen features, and what all linear classifiers share.

Legend: N samples, F features, Y classes.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.features import Features, Labels

LINEAR_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
DEFAULT_STRENGTH = 0.01
MAX_ITERATIONS = 1000
LONG = 10**10
"""Samples times features times classes from which logistic regression takes long.

An iteration takes four operations for each, so a second at 40 GFLOP/s; there are up to 5,000.
"""
SMALL = 10**9
"""The same product, up to which one thread of BLAS is faster (20 times, if it is 6,000,000)."""
logger = logging.getLogger(__name__)


def linear_answers(
    train_NF: Features,
    train_labels_N: Labels,
    test_NF: Features,
    *,
    iterations: int = MAX_ITERATIONS,
) -> Labels:
    """Train a linear classifier on standardised features and classify others with it.

    Multinomial logistic regression with an L2 penalty, solved by L-BFGS from zero: deterministic.
    Its inverse strength is that of `LINEAR_STRENGTHS` which does best on a held-out tenth of the
    training samples; the classifier is then trained on all of them. Sets must fit in memory; for a
    large one there is a warning.

    Args:
        train_NF: features to train on.
        train_labels_N: their labels.
        test_NF: features to classify.
        iterations: of L-BFGS, at most; fewer than it needs are warned of.

    Returns:
        The label given to each test sample.

    Raises:
        DataError: there are no samples, their number is not that of the labels, or the training
            labels are all the same.
    """
    require_pairs(train_NF, train_labels_N)
    require_any(test_NF)
    require_classes(train_labels_N)
    warn_of_long(*train_NF.shape, classes=len(np.unique(train_labels_N)))
    held_N = held_out(train_labels_N)
    linear = partial(_linear, iterations=iterations)
    strength = DEFAULT_STRENGTH
    if held_N.any() and len(np.unique(train_labels_N[~held_N])) > 1:
        fit = train_NF[~held_N], train_labels_N[~held_N], train_NF[held_N]
        truth = train_labels_N[held_N]
        # The first, most regularised one wins a tie.
        strength = max(LINEAR_STRENGTHS, key=lambda c: accuracy(linear(*fit, strength=c), truth))
    # Only the last one's answers are scored.
    return linear(train_NF, train_labels_N, test_NF, strength=strength, level=logging.WARNING)


def warn_of_long(samples: int, features: int, *, classes: int) -> None:
    """Warn of a logistic regression that takes hours."""
    if samples * features * classes > LONG:
        logger.warning(
            "--linear logistic of %d samples, %d features and %d classes may take hours on the "
            "CPU, and begins anew where it is stopped; --linear official is made for such sets",
            samples,
            features,
            classes,
        )


def held_out(labels_N: Labels) -> NDArray[np.bool_]:
    """Mark a tenth of every large class and, in all, of the small ones; always the same."""
    shuffle_N = np.random.default_rng(0).permutation(len(labels_N))
    by_class_N = np.lexsort((shuffle_N, labels_N))
    held_N = np.zeros(len(labels_N), dtype=bool)
    held_N[by_class_N[5::10]] = True
    return held_N


def _linear(
    train_NF: Features,
    train_labels_N: Labels,
    test_NF: Features,
    *,
    strength: float,
    iterations: int,
    level: int = logging.INFO,
) -> Labels:
    regression = LogisticRegression(C=strength, max_iter=iterations)
    classifier = make_pipeline(StandardScaler(), regression)
    limits = 1 if train_NF.size * len(np.unique(train_labels_N)) <= SMALL else None
    blas = threadpool_limits(limits=limits, user_api="blas")
    with warnings.catch_warnings(record=True) as caught, blas:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(train_NF, train_labels_N)
    if caught:
        logger.log(
            level,
            "the linear classifier with C=%g stopped after %d iterations, short of its optimum",
            strength,
            regression.n_iter_.max(),
        )
    answers_N: Labels = classifier.predict(test_NF)
    return answers_N


def require_pairs(features_NF: Features, labels_N: Labels) -> None:
    """Refuse an empty training set, and one without a label for each feature; raises DataError."""
    if len(features_NF) != len(labels_N) or not len(labels_N):
        raise DataError(
            f"{len(features_NF)} training features and {len(labels_N)} labels are no labelled set; "
            "give as many labels as images, and at least one"
        )


def require_any(test_NF: NDArray[np.generic]) -> None:
    """Refuse an empty set of features to classify; raises DataError."""
    if not len(test_NF):
        raise DataError("there are no test features to classify; give at least one image")


def require_classes(labels_N: Labels) -> None:
    """Refuse training labels of fewer than two classes; raises DataError."""
    if len(np.unique(labels_N)) < 2:
        raise DataError("the training samples are all of one class; a classifier needs two")


INITIAL_STD = 0.01
MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Features to train on, in one view or several that take turns.

    Attributes:
        labels_N: class of each sample.
        views: number of views.
        read: returns the features of a view, (N, F) float32.
    """

    labels_N: Labels
    views: int
    read: Callable[[int], Features]

    def of_epoch(self, epoch: int) -> torch.Tensor:
        """Return the features that an epoch trains on: view `epoch` modulo the number of views.

        Raises:
            DataError: they are not as many as the labels.
        """
        features_NF = self.read(epoch % self.views)
        require_pairs(features_NF, self.labels_N)
        return torch.from_numpy(features_NF)


def numbered(labels_N: Labels) -> tuple[Labels, torch.Tensor]:
    """Return the classes in order, and each sample's place among them.

    Raises:
        DataError: there are fewer than two.
    """
    require_classes(labels_N)
    classes_Y, class_N = np.unique(labels_N, return_inverse=True)
    return classes_Y, torch.from_numpy(class_N)


def shuffled_batches(
    rows: NDArray[np.int64], batch: int, *, seed: int, epoch: int
) -> Iterator[torch.Tensor]:
    """Yield an epoch's full batches of rows, in an order that depends on seed and epoch alone."""
    order = rows[keyed_generator("linear", seed, epoch).permutation(len(rows))]
    for start in range(0, len(order) - batch + 1, batch):
        yield torch.from_numpy(order[start : start + batch])


def require_finite(head: nn.Linear, flag: str) -> None:
    """Refuse weights that are not finite, which give answers all the same.

    Args:
        head: that was trained.
        flag: the option of its learning rate.

    Raises:
        DataError: the training has diverged.
    """
    if not all(parameter.isfinite().all() for parameter in head.parameters()):
        raise DataError(f"a linear classifier has diverged; give a lower {flag}")


def draw_head(inputs: int, outputs: int, *, seed: int) -> nn.Linear:
    """Return a linear layer with weights of N(0, 0.01²) and no bias yet, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(inputs, outputs)
        nn.init.trunc_normal_(head.weight, std=INITIAL_STD)
        nn.init.zeros_(head.bias)
    return head
