"""The official linear protocol and DINOv2's sweep: their numbers, steps and answers."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.classifiers import (
    TrainingSet,
    draw_head,
    numbered,
    shuffled_batches,
)
from milan_pipeline.evaluate.probe.linear_official import (
    make_lars,
    official_answers,
    official_model,
    official_steps,
    peak_rate,
)
from milan_pipeline.evaluate.probe.linear_sweep import sweep_answers, train_heads
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep
from tests.support.labelled import blobs

QUICK = OfficialLinear(epochs=30, warmup_epochs=3)


def training(features, labels, views=1):
    return TrainingSet(labels_N=labels, views=views, read=lambda _: features)


def test_the_official_numbers_are_those_of_section_5():
    protocol = OfficialLinear()
    assert (protocol.epochs, protocol.warmup_epochs) == (100, 10)
    assert protocol.batch_of(1_281_167) == 16384
    assert peak_rate(protocol, batch=16384, width=768) == pytest.approx(0.05 * 64)
    assert peak_rate(protocol, batch=16384, width=1024) == pytest.approx(0.02 * 64)
    lars = make_lars(nn.Linear(3, 2))
    assert [group["weight_decay"] for group in lars.param_groups] == [0, 0]


def test_the_batch_suits_the_set():
    protocol = OfficialLinear()
    assert protocol.batch_of(8000) == 8000 // 78
    assert protocol.batch_of(100) == 16
    assert protocol.batch_of(10) == 10
    assert peak_rate(protocol, batch=102, width=8) == pytest.approx(0.05 * 64)
    given = OfficialLinear(batch=512, base_rate=0.1)
    assert given.batch_of(8000) == 512
    assert peak_rate(given, batch=512, width=8) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="2 or more"):
        protocol.batch_of(1)


def test_lars_takes_the_official_steps():
    """MAE's update written out: trust ratio for the matrix, plain SGD for the bias, momentum."""
    head = draw_head(5, 3, seed=0)
    nn.init.normal_(head.bias, generator=torch.Generator().manual_seed(1))
    expected = [parameter.detach().clone() for parameter in (head.weight, head.bias)]
    buffers = [torch.zeros_like(values) for values in expected]
    lars = make_lars(head)
    for step in range(4):
        rate = 0.5 + step
        for group in lars.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(step)
        for place, parameter in enumerate((head.weight, head.bias)):
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient.clone()
            if parameter.ndim > 1:
                gradient *= 0.001 * expected[place].norm() / gradient.norm()
            buffers[place] = 0.9 * buffers[place] + gradient
            expected[place] -= rate * buffers[place]
        lars.step()
        torch.testing.assert_close(head.weight.detach(), expected[0])
        torch.testing.assert_close(head.bias.detach(), expected[1])


def test_the_official_classifier_tells_separable_classes_apart_and_repeats():
    train, (test, truth) = blobs(60, spread=0.2, seed=1), blobs(40, spread=0.2, seed=2)
    first = official_answers(training(*train), test, QUICK)
    assert accuracy(first, truth) == 100
    assert first.dtype == np.int64
    np.testing.assert_array_equal(first, official_answers(training(*train), test, QUICK))


def test_the_official_rate_rises_then_follows_half_a_cosine():
    features, labels = blobs(10, spread=1, seed=1)
    protocol = OfficialLinear(epochs=4, warmup_epochs=2, batch=25, base_rate=256 / 25)
    head = draw_head(features.shape[1], 5, seed=0)
    lars, peak = make_lars(head), peak_rate(protocol, batch=25, width=features.shape[1])
    sets = (torch.from_numpy(features), numbered(labels)[1])
    halves = list(zip(*(torch.split(each, 25) for each in sets), strict=True))
    trained = official_steps(
        official_model(head), lars, lambda _: halves, protocol=protocol, peak=peak, steps=2
    )
    rates = [lars.param_groups[0]["lr"] for _ in trained]
    # Two steps an epoch: up to 1 by half an epoch's quarter each, then (1 + cos) / 2.
    falling = [(1 + np.cos(np.pi * done / 4)) / 2 for done in range(4)]
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.75, *falling])


def test_epochs_take_views_in_turn():
    features, labels = blobs(10, spread=1, seed=1)
    read: list[int] = []

    def view(number):
        read.append(number)
        return features

    official_answers(TrainingSet(labels_N=labels, views=3, read=view), features, QUICK)
    assert read == [epoch % 3 for epoch in range(30)]


def test_orders_differ_by_epoch_and_seed_and_hold_no_row_twice():
    rows = np.arange(100, 130)

    def order(seed, epoch):
        return torch.cat(list(shuffled_batches(rows, 7, seed=seed, epoch=epoch))).tolist()

    assert len(order(0, 0)) == len(set(order(0, 0)) & set(rows.tolist())) == 28
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*key)) for key in ((0, 0), (0, 1), (1, 0))}) == 3


def swept(features, labels, test, **changes):
    """Run a short sweep over one kind of features."""
    protocol = Sweep(**{"steps": 200, "batch": 64} | changes)
    return sweep_answers(
        {"cls": training(features, labels)}, {"cls": features}, {"cls": test}, protocol
    )


def test_the_sweep_has_dinov2_s_numbers():
    assert Sweep().rates == (
        1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1,
    )  # fmt: skip
    assert (Sweep().steps, Sweep().batch) == (12_500, 1024)


def test_the_sweep_picks_a_rate_that_works():
    features, labels = blobs(60, spread=0.5, seed=1)
    test, truth = blobs(40, spread=0.5, seed=2)
    answers, choice = swept(features, labels, test, rates=(1e-9, 0.1, 1e6))
    assert choice.rate == 0.1
    assert choice.held_out > 90
    assert accuracy(answers, truth) > 90
    again, _ = swept(features, labels, test, rates=(1e-9, 0.1, 1e6))
    np.testing.assert_array_equal(answers, again)


def test_the_sweep_picks_the_features_that_tell():
    features, labels = blobs(40, spread=0.3, seed=1)
    noise = np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    sets = {"cls": noise, "mean": features}
    train = {name: training(values, labels) for name, values in sets.items()}
    _, choice = sweep_answers(train, sets, sets, Sweep(steps=100, batch=64))
    assert choice.pool == "mean"


def test_the_test_images_have_no_say_in_the_choice():
    features, labels = blobs(40, spread=1.5, seed=1)
    _, first = swept(features, labels, features[:5])
    _, second = swept(features, labels, -features)
    assert first == second


def test_weighting_a_loss_is_taking_the_rate():
    """Every rate's classifier is the one that plain SGD with that rate alone would train."""
    features, labels = blobs(20, spread=1, seed=1)
    train, rows = {"cls": training(features, labels)}, np.arange(len(labels))
    protocol = Sweep(steps=30, batch=25)
    rates = (0.01, 0.5)
    wide = train_heads(train, rows, rates, protocol)["cls"]
    class_N = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    for weight, rate in zip(wide.weight.detach().chunk(len(rates)), rates, strict=True):
        head = draw_head(features.shape[1], 5, seed=0)
        sgd = torch.optim.SGD(head.parameters(), lr=rate * 25 / 256, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 30)
        for rows_B in orders(rows, epochs=8, steps=30):
            sgd.zero_grad()
            logits = head(torch.from_numpy(features)[rows_B])
            nn.functional.cross_entropy(logits, class_N[rows_B]).backward()
            sgd.step()
            cosine.step()
        torch.testing.assert_close(weight, head.weight.detach(), rtol=1e-4, atol=1e-5)


def orders(rows, *, epochs, steps) -> Iterator[torch.Tensor]:
    """Yield the sweep's batches of 25 from 100 rows."""
    every = [b for e in range(epochs) for b in shuffled_batches(rows, 25, seed=0, epoch=e)]
    yield from every[:steps]


def test_too_few_samples_for_a_sweep_are_refused():
    features, labels = blobs(1, spread=1, seed=1)
    with pytest.raises(DataError, match="too few to hold a tenth out"):
        swept(features, labels, features)


@pytest.mark.parametrize("answer", ["official", "sweep"])
def test_one_class_and_unpaired_features_are_refused(answer):
    def classify(features, labels, test):
        if answer == "official":
            return official_answers(training(features, labels), test, QUICK)
        return swept(features, labels, test)[0]

    features, labels = blobs(10, spread=1, seed=1)
    with pytest.raises(DataError, match="all of one class"):
        classify(features, np.zeros_like(labels), features)
    with pytest.raises(DataError, match="no labelled set"):
        classify(features[:9], labels, features)
    with pytest.raises(DataError, match="no test features"):
        classify(features, labels, features[:0])


def test_classifiers_that_diverge_are_refused_or_passed_over():
    features, labels = blobs(40, spread=0.3, seed=1)
    wild = dataclasses.replace(QUICK, base_rate=1e20)
    with pytest.raises(DataError, match="has diverged; give a lower --linear-lr"):
        official_answers(training(features, labels), features, wild)
    with pytest.raises(DataError, match="every classifier of the sweep has diverged"):
        swept(features, labels, features, rates=(1e38,))
    _, choice = swept(features, labels, features, rates=(0.1, 1e38))
    assert choice.rate == 0.1
