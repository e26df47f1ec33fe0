"""Judge frozen features: extract them, then k-NN and linear accuracy.

Legend: N samples, F features, B test samples at a time, K neighbours, Y classes.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from milan_pipeline.crops import view_pixels
from milan_pipeline.encoders import FrozenEncoder
from milan_pipeline.errors import BadImageError, ConfigError, DataError
from milan_pipeline.images import decode_rgb
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.views import center_crop

KNN_CHUNK = 512
LINEAR_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
DEFAULT_STRENGTH = 0.01
MAX_ITERATIONS = 1000

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Bad = tuple[int, str]

logger = logging.getLogger(__name__)


def extract_features(
    encoder: FrozenEncoder,
    samples: Iterable[tuple[bytes, int]],
    *,
    total: int,
    batch_size: int = 64,
    workers: int = 2,
    pool: str = "cls",
    description: str = "features",
) -> tuple[Features, Labels, list[Bad]]:
    """Encode the central view of every image; threads decode ahead while the encoder computes.

    Args:
        encoder: what to judge.
        samples: bytes of an image and its label.
        total: number of samples, for the progress bar.
        batch_size: images at a time; the features do not depend on it but for rounding.
        workers: decoding threads; 0 decodes in between.
        pool: one of `encoders.POOLS`.
        description: beside the progress bar.

    Returns:
        features_NF float32 and labels_N int64 in the samples' order, and what was left out as
        (position, reason).

    Raises:
        DataError: no image could be decoded, or a feature is not finite.
    """
    bad: list[Bad] = []
    labels: list[int] = []
    batches: list[torch.Tensor] = []
    views = ordered_map(
        lambda sample: (_central_view(sample[0], encoder.image_size), sample[1]),
        samples,
        workers=workers,
        ahead=2 * batch_size,
    )
    with progress_bar(description, total=total) as bar:
        for batch in _batches(views, batch_size, labels, bad):
            batches.append(encoder.features(torch.stack(batch), pool=pool))
            bar.update(len(batch))
    if not batches:
        raise DataError(f"none of {len(bad)} images could be decoded; give other images")
    features_NF: Features = torch.cat(batches).numpy()
    if not np.isfinite(features_NF).all():
        raise DataError(
            f"encoder {encoder.name!r} gives infinite or NaN features; its training has diverged"
        )
    return features_NF, np.array(labels, dtype=np.int64), bad


def _central_view(data: bytes, size: int) -> torch.Tensor | str:
    """Return the view, or why there is none."""
    try:
        rgb_HWC = decode_rgb(data)
    except BadImageError as error:
        return str(error)
    return view_pixels(rgb_HWC, center_crop(*rgb_HWC.shape[:2]), size)


def _batches(
    views: Iterable[tuple[torch.Tensor | str, int]],
    batch_size: int,
    labels: list[int],
    bad: list[Bad],
) -> Iterator[list[torch.Tensor]]:
    """Group views into batches and note their labels; what is no view goes to `bad`."""
    batch: list[torch.Tensor] = []
    for position, (view, label) in enumerate(views):
        if isinstance(view, str):
            bad.append((position, view))
            continue
        batch.append(view)
        labels.append(label)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def knn_answers(
    train_NF: Features,
    train_labels_N: Labels,
    test_NF: Features,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Labels:
    """Classify by the nearest training features, each voting with exp(cosine / temperature).

    (The weighted k-NN of Wu et al., arXiv 1805.01978, section 3.4, as DINO, arXiv 2104.14294,
    uses it.)

    Args:
        train_NF: features that vote.
        train_labels_N: their labels.
        test_NF: features to classify.
        k: neighbours; fewer where there are fewer training samples.
        temperature: of the votes.

    Returns:
        The label given to each test sample.

    Raises:
        ConfigError: k or temperature is not positive.
        DataError: there are no samples, or their number is not that of the labels.
    """
    if k < 1 or temperature <= 0:
        raise ConfigError(
            f"k-NN with k {k} and temperature {temperature} is no vote; give both > 0"
        )
    _require_pairs(train_NF, train_labels_N, "training")
    _require_any(test_NF)
    classes_Y, train_class_N = np.unique(train_labels_N, return_inverse=True)
    voters_NF = F.normalize(torch.from_numpy(train_NF), dim=1)
    class_N = torch.from_numpy(train_class_N)
    k = min(k, len(voters_NF))
    answers = []
    for test_BF in torch.split(torch.from_numpy(test_NF), KNN_CHUNK):
        cosine_BK, index_BK = (F.normalize(test_BF, dim=1) @ voters_NF.T).topk(k, dim=1)
        # Shifted by the largest cosine, which no argmax notices, so that none can overflow.
        weight_BK = torch.exp((cosine_BK - 1) / temperature)
        votes_BY = torch.zeros(len(test_BF), len(classes_Y))
        votes_BY.scatter_add_(1, class_N[index_BK], weight_BK)
        answers.append(votes_BY.argmax(dim=1))
    answers_N: Labels = classes_Y[torch.cat(answers).numpy()]
    return answers_N


def linear_answers(train_NF: Features, train_labels_N: Labels, test_NF: Features) -> Labels:
    """Train a linear classifier on standardised features and have it classify others.

    Multinomial logistic regression with an L2 penalty, solved by L-BFGS from zero: deterministic.
    Its inverse strength is that of `LINEAR_STRENGTHS` which does best on a held-out tenth of the
    training samples; the classifier is then trained on all of them. For sets that fit in memory.

    Args:
        train_NF: features to learn from.
        train_labels_N: their labels.
        test_NF: features to classify.

    Returns:
        The label given to each test sample.

    Raises:
        DataError: there are no samples, their number is not that of the labels, or the training
            labels are all the same.
    """
    _require_pairs(train_NF, train_labels_N, "training")
    _require_any(test_NF)
    if len(np.unique(train_labels_N)) < 2:
        raise DataError("the training samples are all of one class; a classifier needs two")
    held_N = _held_out(train_labels_N)
    strength = DEFAULT_STRENGTH
    if held_N.any() and len(np.unique(train_labels_N[~held_N])) > 1:
        fit = train_NF[~held_N], train_labels_N[~held_N], train_NF[held_N]
        truth = train_labels_N[held_N]
        # The first, most regularised one wins a tie.
        strength = max(LINEAR_STRENGTHS, key=lambda c: per_cent(_linear(*fit, strength=c), truth))
    return _linear(train_NF, train_labels_N, test_NF, strength=strength)


def _held_out(labels_N: Labels) -> NDArray[np.bool_]:
    """Mark a tenth of every large class and, in all, of the small ones; always the same."""
    shuffle_N = np.random.default_rng(0).permutation(len(labels_N))
    by_class_N = np.lexsort((shuffle_N, labels_N))
    held_N = np.zeros(len(labels_N), dtype=bool)
    held_N[by_class_N[5::10]] = True
    return held_N


def _linear(
    train_NF: Features, train_labels_N: Labels, test_NF: Features, *, strength: float
) -> Labels:
    regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    classifier = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(train_NF, train_labels_N)
    if caught:
        logger.info(
            "the linear classifier with C=%g stopped after %d iterations, short of its optimum",
            strength,
            regression.n_iter_.max(),
        )
    answers_N: Labels = classifier.predict(test_NF)
    return answers_N


def _require_pairs(features_NF: Features, labels_N: Labels, which: str) -> None:
    if len(features_NF) != len(labels_N) or not len(labels_N):
        raise DataError(
            f"{len(features_NF)} {which} features and {len(labels_N)} labels are no labelled set; "
            "give as many labels as images, and at least one"
        )


def _require_any(test_NF: Features) -> None:
    if not len(test_NF):
        raise DataError("there are no test features to classify; give at least one image")


def per_cent(answers_N: Labels, labels_N: Labels) -> float:
    """Return how many answers are right, in per cent."""
    return 100 * float(np.mean(answers_N == labels_N))
