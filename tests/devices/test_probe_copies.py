"""A probe on a GPU: pixels go there and features come back, and neither is waited for."""

import numpy as np
import timm
import torch

from milan_pipeline.encoders.frozen import StudentEncoder
from milan_pipeline.evaluate.probe import linear_official, linear_sweep
from milan_pipeline.evaluate.probe.classifiers import TrainingSet
from milan_pipeline.evaluate.probe.features import encoded
from milan_pipeline.evaluate.probe.protocols import OfficialLinear, Sweep
from tests.support.fake_gpu import GPU, Copy, fake_gpu

SIZE, WIDTH = 32, 64
CLASSES = torch.arange(12) % 3
TRAINING = TrainingSet(
    labels_N=CLASSES.numpy(), views=1, read=lambda _: np.zeros((12, 5), dtype=np.float32)
)


def test_a_batch_of_features_is_a_copy_there_and_one_back() -> None:
    model = timm.create_model("test_vit", img_size=SIZE, num_classes=0)
    views = [torch.zeros(3, SIZE, SIZE, dtype=torch.uint8) for _ in range(4)]
    with fake_gpu() as copies:
        model.to(GPU)
        encoder = StudentEncoder(model, name="x", mean=[0.5] * 3, std=[0.2] * 3, bf16=True)
        copies.made.clear()
        found = list(encoded(encoder, iter([views, views]), "both"))
        assert [(each.shape, each.dtype) for each in found] == [((4, 2 * WIDTH), torch.float32)] * 2
        assert found[0].device == torch.device("cpu")
        there = Copy("cuda", 4 * 3 * SIZE * SIZE, waits=False)
        back = Copy("cpu", 4 * 2 * WIDTH * 4, waits=False)
        assert copies.made == [there, back] * 2


def test_a_batch_of_the_official_classifier_is_two_copies() -> None:
    with fake_gpu() as copies:
        protocol = OfficialLinear(batch=4, device="cuda:0")
        batches = list(linear_official.batches_of(TRAINING, CLASSES, protocol, 0))
        assert [(x.device, y.device) for x, y in batches] == [(GPU, GPU)] * 3
        features, classes = Copy("cuda", 4 * 5 * 4, waits=False), Copy("cuda", 4 * 8, waits=False)
        assert copies.made == [features, classes] * 3


def test_a_batch_of_the_sweep_is_a_copy_for_each_kind_of_features_and_one() -> None:
    with fake_gpu() as copies:
        protocol = Sweep(batch=4, device="cuda:0")
        sets = {"cls": TRAINING, "mean": TRAINING}
        batches = linear_sweep.batches_of(sets, CLASSES, np.arange(12), protocol)
        features, truth = next(batches)
        assert {each.device for each in (*features.values(), truth)} == {GPU}
        feature = Copy("cuda", 4 * 5 * 4, waits=False)
        assert copies.made == [feature, feature, Copy("cuda", 4 * 8, waits=False)]
