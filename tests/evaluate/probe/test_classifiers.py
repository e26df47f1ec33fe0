"""Frozen features and the classifiers on them: the scores mean what they say."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from milan_pipeline.encoders.frozen import PixelEncoder
from milan_pipeline.encoders.load import load_encoder
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.evaluate.accuracies import accuracy
from milan_pipeline.evaluate.probe.classifiers import (
    linear_answers,
    warn_of_long,
)
from milan_pipeline.evaluate.probe.features import extract_features
from milan_pipeline.evaluate.probe.knn import KNN_CHUNK, knn_answers
from tests.support.clip import pixels
from tests.support.labelled import CLASSES, blobs


def knn_accuracy(train, train_labels, test, test_labels, *, k=20, **options):
    return accuracy(knn_answers(train, train_labels, test, ks=(k,), **options)[k], test_labels)


def linear_accuracy(train, train_labels, test, test_labels):
    return accuracy(linear_answers(train, train_labels, test), test_labels)


@pytest.mark.parametrize("score", [knn_accuracy, linear_accuracy])
class TestScores:
    def test_separable_classes_are_told_apart(self, score):
        assert score(*blobs(60, spread=0.2, seed=1), *blobs(40, spread=0.2, seed=2)) > 99

    def test_shuffled_labels_give_chance(self, score):
        features, labels = blobs(100, spread=0.2, seed=1)
        shuffled = np.random.default_rng(5).permutation(labels)
        accuracy = score(features, shuffled, *blobs(100, spread=0.2, seed=2))
        assert abs(accuracy - 100 / CLASSES) < 15

    def test_repeats_to_the_bit(self, score):
        sets = (*blobs(30, spread=2, seed=1), *blobs(30, spread=2, seed=2))
        assert score(*sets) == score(*sets)
        assert 20 < score(*sets) < 95

    def test_a_class_that_was_never_trained_counts_as_wrong(self, score):
        features, labels = blobs(20, spread=0.1, seed=2)
        known = labels != labels.max()
        accuracy = score(features[known], labels[known], features, labels)
        assert accuracy == pytest.approx(100 * known.mean())

    def test_constant_features_do_not_break_it(self, score):
        features, labels = blobs(20, spread=0.1, seed=2)
        features[:, 3] = 7
        assert score(features, labels, features, labels) > 99

    @pytest.mark.parametrize("count", [0, 3])
    def test_unpaired_labels_are_refused(self, score, count):
        features, labels = blobs(2, spread=1, seed=0)
        with pytest.raises(DataError, match="no labelled set"):
            score(features[:count], labels[: 2 * count], features, labels)

    def test_nothing_to_classify_is_refused(self, score):
        features, labels = blobs(2, spread=1, seed=0)
        with pytest.raises(DataError, match="no test features"):
            score(features, labels, features[:0], labels[:0])


def test_knn_equals_its_definition():
    (train, train_labels), (test, test_labels) = (blobs(9, spread=2, seed=s) for s in (1, 2))
    train_unit, test_unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    correct = 0
    for row, label in zip(test_unit @ train_unit.T, test_labels, strict=True):
        votes = dict.fromkeys(train_labels.tolist(), 0.0)
        for index in np.argsort(-row)[:7]:
            votes[int(train_labels[index])] += np.exp(row[index] / 0.1)
        correct += max(votes, key=votes.__getitem__) == label
    accuracy = knn_accuracy(train, train_labels, test, test_labels, k=7, temperature=0.1)
    assert accuracy == pytest.approx(100 * correct / len(test))


def test_knn_takes_fewer_neighbours_and_chunks():
    train, (test, _) = blobs(3, spread=2, seed=1), blobs(200, spread=2, seed=2)
    assert len(test) > KNN_CHUNK
    whole, *parts = (
        knn_answers(train[0], train[1], some, ks=(500,))[500] for some in (test, *np.split(test, 4))
    )
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_every_k_gets_its_own_vote():
    (train, train_labels), (test, _) = (blobs(9, spread=2, seed=s) for s in (1, 2))
    found = knn_answers(train, train_labels, test, ks=(7, 1, 500))
    assert list(found) == [7, 1, 500]
    for k, answers in found.items():
        (alone,) = knn_answers(train, train_labels, test, ks=(k,)).values()
        np.testing.assert_array_equal(answers, alone)


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}])
def test_knn_refuses_a_vote_of_nobody(options):
    sets = (*blobs(3, spread=0.1, seed=1), *blobs(7, spread=0.1, seed=2))
    with pytest.raises(ConfigError, match="is no vote"):
        knn_accuracy(*sets, **options)


def test_a_temperature_that_leaves_no_vote_is_refused():
    (train, labels), (test, _) = (blobs(2, spread=2, seed=seed) for seed in (1, 2))
    with pytest.raises(ConfigError, match="--temperature 1e-09 is so low that votes are 0"):
        knn_answers(train, labels, test, ks=(1,), temperature=1e-9)


def test_linear_needs_two_classes():
    features, labels = blobs(3, spread=0.1, seed=1)
    with pytest.raises(DataError, match="all of one class"):
        linear_accuracy(features, np.zeros_like(labels), features, labels)


def test_linear_copes_with_a_handful_of_samples():
    features, labels = blobs(1, spread=0.0, seed=1)
    assert linear_accuracy(features, labels, features, labels) == 100


def test_an_unfinished_optimum_is_warned_of_where_its_answers_are_scored(caplog):
    (train, labels), (test, _) = (blobs(30, spread=2, seed=seed) for seed in (1, 2))
    with caplog.at_level(logging.WARNING):
        linear_answers(train, labels, test, iterations=1)
    (said,) = caplog.messages
    assert "short of its optimum" in said


def test_more_neighbours_than_images_are_warned_of(caplog):
    (train, labels), (test, _) = (blobs(2, spread=2, seed=seed) for seed in (1, 2))
    knn_answers(train, labels, test, ks=(1, len(labels)))
    assert caplog.messages == []
    knn_answers(train, labels, test, ks=(1, len(labels) + 1))
    assert f"--k {len(labels) + 1} is more than the {len(labels)} images" in caplog.text


def test_imagenet_is_warned_of_and_the_demo_is_not(caplog):
    warn_of_long(8000, 384, classes=12)
    assert caplog.messages == []
    warn_of_long(1_281_167, 768, classes=1000)
    assert "1281167 samples" in (said := caplog.text)
    assert "--linear official" in said


def png(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def images(count, seed=0):
    """Return labelled images, (bytes, label, name), whose label is their colour."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        rgb = rng.integers(0, 60, (12, 17, 3), dtype=np.uint8)
        rgb[..., index % 3] += 150
        yield png(rgb), index % 3, str(index)


def test_features_keep_order_and_report_bad_images():
    samples = list(images(11))
    samples[4] = (b"nothing", 1, "4")
    encoder = PixelEncoder(8)
    features, labels, bad = extract_features(encoder, samples, total=11, batch_size=4, pool="cls")
    assert features.shape == (10, 3 * 8 * 8)
    assert features.dtype == np.float32
    assert labels.dtype == np.int64
    assert labels.tolist() == [label for i, (_, label, _) in enumerate(samples) if i != 4]
    assert [position for position, _ in bad] == [4]
    assert "no JPEG, PNG or WebP" in bad[0][1]
    alone, _, _ = extract_features(encoder, samples[10:], total=1, workers=0)
    np.testing.assert_array_equal(features[-1:], alone)


def test_pixels_tell_colours_apart():
    encoder = load_encoder("pixels:8")
    train = extract_features(encoder, images(60), total=60)[:2]
    test = extract_features(encoder, images(30, seed=1), total=30)[:2]
    assert knn_accuracy(*train, *test) == 100
    assert linear_accuracy(*train, *test) == 100


def test_only_bad_images_is_an_error():
    with pytest.raises(DataError, match="none of 2 images"):
        extract_features(PixelEncoder(), [(b"", 0, "a"), (b"x", 1, "b")], total=2)


class Diverged(PixelEncoder):
    def features(self, pixels_BCHW, *, pool="cls"):
        del pool
        return torch.full((len(pixels_BCHW), 3), torch.nan)


def test_diverged_encoder_is_an_error():
    with pytest.raises(DataError, match="has diverged"):
        extract_features(Diverged(8), images(2), total=2)


def test_unknown_pool_is_refused():
    with pytest.raises(ConfigError, match="choose one of cls, mean, both"):
        PixelEncoder().features(pixels(), pool="max")
