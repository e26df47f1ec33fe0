"""k-NN: `probe`'s answers and votes.

Legend: N test samples, Y classes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.parity_cases.case import Case, Deviation, most_relative
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.knn import knn_answers, knn_votes

TOP = 5


def compare(case: Case) -> Iterator[Deviation]:
    """Yield a deviation for each K's answers, votes and accuracy."""
    ks = tuple(case.settings["k"])
    temperature = case.settings["temperature"]
    names = ("train_features", "train_labels", "test_features", "test_labels")
    train_NF, train_labels_N, test_NF, labels_N = (case.io[name].numpy() for name in names)
    sets = (train_NF, train_labels_N, test_NF)
    answers = knn_answers(*sets, ks=ks, temperature=temperature)
    chunks = list(knn_votes(*sets, ks=ks, temperature=temperature))
    classes = torch.unique(case.io["train_labels"])
    for k in ks:
        official_N, own_N = case.out[f"answers_{k}"], torch.from_numpy(answers[k])
        others = float((official_N != own_N).sum())
        count = float(len(official_N))
        allowed = case.tolerance("answers")
        yield Deviation(f"answers of {k}", count, count - others, "abs", others, allowed)

        official_NY = case.out[f"votes_{k}"]
        own_NY = torch.zeros_like(official_NY)
        own_NY[:, classes] = torch.cat([chunk[k] for chunk in chunks])
        # All of them may be scaled by the same factor.
        scaled_NY = own_NY.double() * (official_NY.double().sum() / own_NY.double().sum())
        yield most_relative(f"votes of {k}", official_NY, scaled_NY, case.tolerance("votes"))

        results = case.values["results"][str(k)]
        found = {
            "top1": accuracy(answers[k], labels_N),
            "top5_with_a_vote": _top5(own_NY, case.io["test_labels"]),
        }
        for name in [name for name in found if name in results]:
            official, own = results[name], found[name]
            missed = abs(own - official)
            yield Deviation(f"{name} of {k}", official, own, "abs", missed, case.tolerance("top1"))


def _top5(votes_NY: Tensor, labels_N: Tensor) -> float:
    """Return for how many samples, in per cent, the label is among the five with the most votes."""
    votes, classes = votes_NY.topk(min(TOP, votes_NY.shape[1]), dim=1)
    hits_N = ((classes == labels_N[:, None]) & (votes > 0)).any(dim=1)
    return 100 * float(hits_N.double().mean())
