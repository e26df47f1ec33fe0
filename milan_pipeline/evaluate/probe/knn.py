"""k-NN on frozen features: the nearest training samples vote.

Legend: N samples, F features, B test samples at a time, K neighbours, Y classes.
"""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.probe.classifiers import require_any, require_pairs
from milan_pipeline.evaluate.probe.features import Features, Labels

KNN_CHUNK = 512
logger = logging.getLogger(__name__)


def knn_answers(
    train_NF: Features,
    train_labels_N: Labels,
    test_NF: Features,
    *,
    ks: Sequence[int] = (20,),
    temperature: float = 0.07,
) -> dict[int, Labels]:
    """Classify by the nearest training features, each voting with exp(cosine / temperature).

    (The weighted k-NN of Wu et al., arXiv 1805.01978, section 3.4, as DINO, arXiv 2104.14294,
    uses it.)

    Args:
        train_NF: features that vote.
        train_labels_N: their labels.
        test_NF: features to classify.
        ks: numbers of neighbours to try; fewer where there are fewer training samples.
        temperature: of the votes.

    Returns:
        For each k, the label given to each test sample.

    Raises:
        ConfigError: a k or the temperature is not positive, or the temperature leaves no vote.
        DataError: there are no samples, or their number is not that of the labels.
    """
    if not ks or min(ks) < 1 or temperature <= 0:
        raise ConfigError(
            f"k-NN with k {list(ks)} and temperature {temperature} is no vote; give both > 0"
        )
    require_pairs(train_NF, train_labels_N)
    require_any(test_NF)
    classes_Y = np.unique(train_labels_N)
    if max(ks) > len(train_NF):
        logger.warning(
            "--k %d is more than the %d images to learn from, all of which vote; give fewer",
            max(ks),
            len(train_NF),
        )
    answers: dict[int, list[torch.Tensor]] = {k: [] for k in ks}
    for votes in knn_votes(train_NF, train_labels_N, test_NF, ks=ks, temperature=temperature):
        if not all(votes_BY.any(dim=1).all() for votes_BY in votes.values()):
            raise ConfigError(
                f"--temperature {temperature:g} is so low that votes are 0; give more, such as 0.07"
            )
        for k, votes_BY in votes.items():
            answers[k].append(votes_BY.argmax(dim=1))
    return {k: classes_Y[torch.cat(parts).numpy()] for k, parts in answers.items()}


def knn_votes(
    train_NF: Features,
    train_labels_N: Labels,
    test_NF: Features,
    *,
    ks: Sequence[int],
    temperature: float,
) -> Iterator[dict[int, torch.Tensor]]:
    """Yield the votes that `knn_answers` counts, of some test samples at a time.

    Yields:
        For each k, float32 (B, Y): Σ exp((cosine - 1) / temperature) of each class among the k
        nearest; classes in the order of their labels.
    """
    classes_Y, train_class_N = np.unique(train_labels_N, return_inverse=True)
    voters_NF = F.normalize(torch.from_numpy(train_NF), dim=1)
    class_N = torch.from_numpy(train_class_N)
    most = min(max(ks), len(voters_NF))
    for test_BF in torch.split(torch.from_numpy(test_NF), KNN_CHUNK):
        cosine_BK, index_BK = (F.normalize(test_BF, dim=1) @ voters_NF.T).topk(most, dim=1)
        # Shifted by the largest cosine, which no argmax notices, so that none can overflow.
        weight_BK = torch.exp((cosine_BK - 1) / temperature)
        yield {
            k: torch.zeros(len(test_BF), len(classes_Y)).scatter_add_(
                1, class_N[index_BK[:, :k]], weight_BK[:, :k]
            )
            for k in ks
        }
