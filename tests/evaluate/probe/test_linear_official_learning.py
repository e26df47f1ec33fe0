"""What the trained linear classifiers begin from, learn from and are chosen on."""

import numpy as np
import pytest
import torch

from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.classifiers import TrainingSet, draw_head
from milan_pipeline.evaluate.probe.linear_official import official_answers, official_model
from milan_pipeline.evaluate.probe.linear_sweep import sweep_answers, train_heads
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep
from tests.support.labelled import blobs

QUICK = OfficialLinear(epochs=30, warmup_epochs=3)


def training(labels, *views):
    return TrainingSet(labels_N=labels, views=len(views), read=views.__getitem__)


def test_the_first_weights_are_small_and_belong_to_the_seed():
    before = torch.random.get_rng_state()
    head, again, other = (draw_head(400, 50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()
    assert torch.equal(head.weight, again.weight)
    assert not torch.equal(head.weight, other.weight)


@pytest.mark.parametrize("seed", [0, 1])
def test_both_protocols_begin_with_the_weights_of_their_seed(seed):
    features, labels = blobs(20, spread=1, seed=1)
    drawn = draw_head(features.shape[1], 5, seed=seed)
    protocol = Sweep(rates=(0.0,), steps=1, seed=seed)
    train = {"cls": training(labels, features)}
    swept = train_heads(train, np.arange(len(labels)), (0.0,), protocol)
    assert torch.equal(swept["cls"].weight, drawn.weight)

    # Where nothing is trained, the answers are those of the drawn weights behind a BatchNorm that
    # has followed the batches: here of the whole set, hence always the same.
    still = OfficialLinear(epochs=200, warmup_epochs=1, base_rate=0.0, batch=100, seed=seed)
    answers = official_answers(training(labels, features), features, still)
    model = official_model(drawn)
    for _ in range(still.epochs):
        model(torch.from_numpy(features))
    expected = model.eval()(torch.from_numpy(features)).argmax(dim=1)
    np.testing.assert_array_equal(answers, np.unique(labels)[expected.numpy()])


@pytest.mark.parametrize("protocol", ["official", "sweep"])
def test_every_view_is_learnt_from(protocol):
    """Of two views, one says nothing."""
    features, labels = blobs(40, spread=0.3, seed=1)
    train = training(labels, np.zeros_like(features), features)
    if protocol == "official":
        answers = official_answers(train, features, QUICK)
    else:
        sets, short = {"cls": features}, Sweep(rates=(0.1,), steps=100, batch=64)
        answers, _ = sweep_answers({"cls": train}, sets, sets, short)
    assert accuracy(answers, labels) > 90


def test_the_official_answer_for_an_image_does_not_depend_on_the_others():
    features, labels = blobs(20, spread=1, seed=1)
    test, _ = blobs(10, spread=1, seed=2)
    brief = OfficialLinear(epochs=4, warmup_epochs=1)
    together, alone = (
        official_answers(training(labels, features), some, brief) for some in (test, test[7:8])
    )
    assert together[7] == alone


def test_a_sweep_chooses_on_what_was_not_learnt_and_then_learns_from_all():
    """Labels without any rule, more features than samples: right is who has seen the sample."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(200, 400)).astype(np.float32), rng.integers(2, size=200)
    sets, protocol = {"cls": features}, Sweep(rates=(0.1,), steps=100, batch=64)
    answers, choice = sweep_answers({"cls": training(labels, features)}, sets, sets, protocol)
    assert choice.held_out < 80
    assert accuracy(answers, labels) == 100
