"""Scores cached features by every classifier that was asked for.

Legend: N samples.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from milan_pipeline.core.interrupts import StopRequest, exiting_at_once
from milan_pipeline.core.progress import waiting
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.per_image import answers_table, npy
from milan_pipeline.evaluate.probe.classifiers import (
    TrainingSet,
    linear_answers,
)
from milan_pipeline.evaluate.probe.feature_cache import FeatureSet
from milan_pipeline.evaluate.probe.features import Features, Labels
from milan_pipeline.evaluate.probe.knn import knn_answers
from milan_pipeline.evaluate.probe.linear_official import official_answers
from milan_pipeline.evaluate.probe.linear_sweep import sweep_answers
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep

PUBLISHED_K = 20
KEPT = "features are kept, no scores were written"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifiers:
    """Which classifiers score the features.

    Attributes:
        ks: neighbours of the k-NN classifiers.
        temperature: of their votes.
        logistic: whether there is a logistic regression.
        official: MILAN's linear protocol, if asked for.
        sweep: DINOv2's, if asked for.
    """

    ks: tuple[int, ...]
    temperature: float
    logistic: bool = True
    official: OfficialLinear | None = None
    sweep: Sweep | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sets:
    """Features to train on and to score.

    Attributes:
        train: of the evaluation view of the training images.
        test: of the evaluation view of the test images.
        views: number of views of the training images that the trained classifiers take in turn.
        view: returns the features of one of them. The kind that a classifier trains on is kept in
            memory from its first epoch on, 4 bytes a feature: for 10 views of ImageNet's CLS tokens
            by a ViT-B, 39 GB.
        stop: checked before each epoch.
    """

    train: FeatureSet
    test: FeatureSet
    views: int
    view: Callable[[int], FeatureSet]
    stop: StopRequest

    def training(self, pool: str) -> TrainingSet:
        """Return the training set of one kind of features."""
        pooled = functools.cache(lambda number: self.view(number).pool(pool))

        def read(number: int) -> Features:
            self.stop.raise_if_asked(KEPT)
            return pooled(number)

        return TrainingSet(labels_N=self.train.labels_N, views=self.views, read=read)


def classify(
    sets: Sets, pool: str, classifiers: Classifiers
) -> tuple[dict[str, Labels], dict[str, Any]]:
    """Return each classifier's answers for the test samples, and details for `scores.json`.

    Args:
        sets: features.
        pool: kind of features for all classifiers but the sweep, which tries every kind.
        classifiers: the classifiers.

    Returns:
        The labels given by "knn@K", "linear", "linear-official", "linear-sweep", in that order;
        and what the sweep chose.

    Raises:
        ConfigError: the encoder has no such kind of features.
        DataError: a set is empty or too small, or the training labels are all the same.
        InterruptedRunError: a stop signal came; in k-NN and regression the process exits instead.
    """
    train_labels_N = sets.train.labels_N
    train_NF, test_NF = sets.train.pool(pool), sets.test.pool(pool)
    details: dict[str, Any] = {}
    sets.stop.raise_if_asked(KEPT)
    # Neither asks whether to stop, and neither has anything to keep.
    with exiting_at_once(f"{KEPT}; run the same command to go on"):
        ks, temperature = classifiers.ks, classifiers.temperature
        with waiting("probe: k-NN"):
            votes = knn_answers(train_NF, train_labels_N, test_NF, ks=ks, temperature=temperature)
        answers = {f"knn@{k}": labels for k, labels in votes.items()}
        if classifiers.logistic:
            with waiting("probe: logistic regression"):
                answers["linear"] = linear_answers(train_NF, train_labels_N, test_NF)
    if classifiers.official is not None:
        training = sets.training(pool)
        answers["linear-official"] = official_answers(training, test_NF, classifiers.official)
    if classifiers.sweep is not None:
        pools = sets.train.choices
        answers["linear-sweep"], choice = sweep_answers(
            {name: sets.training(name) for name in pools},
            {name: sets.train.pool(name) for name in pools},
            {name: sets.test.pool(name) for name in pools},
            classifiers.sweep,
        )
        details["sweep"] = dataclasses.asdict(choice)
    return answers, details


def metrics_of(answers: dict[str, Labels], truth_N: Labels) -> dict[str, float]:
    """Return how many answers of each classifier are right, in per cent."""
    return {name: accuracy(labels_N, truth_N) for name, labels_N in answers.items()}


def answers_npy(answers: dict[str, Labels], truth_N: Labels) -> bytes:
    """Serialise a row for each test image that could be read, in the shards' order.

    Columns are "label", "knn" (of k = 20 if that was asked for, else of the first k) and, if there
    is a linear classifier, "linear", the first one's. All other classifiers' have their own names.
    """
    knn = [name for name in answers if name.startswith("knn@")]
    published = f"knn@{PUBLISHED_K}"
    linear = [name for name in answers if name.startswith("linear")]
    short = {
        published if published in knn else knn[0]: "knn",
        **dict.fromkeys(linear[:1], "linear"),
    }
    columns = {short[name]: answers[name] for name in short}
    return npy(answers_table(truth_N, columns | {n: answers[n] for n in answers if n not in short}))
