"""The loss, the rates and the steps of segmentation: spelled out."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from milan_pipeline.evaluate.segmentation.masks import IGNORED
from milan_pipeline.evaluate.segmentation.model import HeadSpec, Logits, make_segmenter
from milan_pipeline.evaluate.segmentation.task import Segmentation, SegmentationConfig
from milan_pipeline.evaluate.segmentation.views import MaskedBatch
from milan_pipeline.training.optim import set_learning_rate
from tests.support.segment import VIT

CONFIG = SegmentationConfig(
    batch=32,
    epochs=10,
    warmup_epochs=2,
    schedule="poly",
    base_lr=1e-4,
    min_lr=1e-5,
    layer_decay=0.5,
    weight_decay=0.1,
    bf16=False,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    seed=3,
)


def task(rank=0, drop_path=0.0, **changes):
    spec = HeadSpec(head="linear", channels=8, classes=3)
    model = make_segmenter(VIT, spec, drop_path=drop_path)
    return Segmentation(model, dataclasses.replace(CONFIG, **changes), rank=rank)


def batch(size=4, side=16):
    generator = torch.Generator().manual_seed(size)
    images = torch.randint(0, 256, (size, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (size, side, side), generator=generator, dtype=torch.uint8)
    labels[:, :5] = IGNORED
    return MaskedBatch(images, labels, [str(n) for n in range(size)])


@pytest.mark.parametrize(
    ("schedule", "epoch", "rate"),
    [
        ("poly", 1, 1e-4),  # half of the warm-up to 1e-4 * 32 / 16
        ("poly", 2, 2e-4),
        ("poly", 4, 1e-5 + 1.9e-4 * 0.75),
        ("cosine", 4, 1e-5 + 1.9e-4 * (0.5 + 0.125**0.5)),
        ("poly", 10, 1e-5),
    ],
)
def test_the_rate_is_that_of_the_head(schedule, epoch, rate):
    assert task(schedule=schedule).rate(epoch) == pytest.approx(rate, rel=1e-9)


def test_a_step_moves_each_layer_at_its_own_rate_and_decays_matrices_alone():
    ours = task()
    before = {name: p.detach().clone() for name, p in ours.model.named_parameters()}
    for parameter in ours.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser = ours.optimiser()
    set_learning_rate(optimiser, 0.01)
    optimiser.step()
    # AdamW's first step has the size of the rate, whatever the gradient; layers are 0 to 5.
    expected = {
        "head.classifier.weight": (0.01, 0.1),
        "head.classifier.bias": (0.01, 0.0),
        "encoder.norm.weight": (0.01, 0.0),
        "encoder.blocks.3.mlp.fc1.weight": (0.005, 0.1),
        "encoder.blocks.0.attn.qkv.weight": (0.01 * 0.5**4, 0.1),
        "encoder.patch_embed.proj.weight": (0.01 * 0.5**5, 0.1),
        "encoder.pos_embed": (0.01 * 0.5**5, 0.0),
    }
    after = dict(ours.model.named_parameters())
    for name, (rate, decay) in expected.items():
        wanted = before[name] * (1 - rate * decay) - rate
        torch.testing.assert_close(after[name].detach(), wanted, atol=1e-7, rtol=1e-5)


def test_the_loss_is_the_labelled_pixels_over_all_and_the_auxiliary_heads_share():
    data, part, seen = batch(), slice(1, 3), []
    main, auxiliary = torch.randn(2, 2, 3, 16, 16).unbind()

    def replica(images):
        seen.append(images)
        return Logits(main, auxiliary)

    found = task().loss(replica, data, part, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CONFIG.mean, CONFIG.std))
    torch.testing.assert_close(seen[0], (data.images_BCSS[part].float() / 255 - mean) / std)
    labels = data.labels_BSS[part, 5:].long()
    of_main, of_auxiliary = (
        F.cross_entropy(each[..., 5:, :], labels) for each in (main, auxiliary)
    )
    # Eleven of sixteen rows are labelled.
    torch.testing.assert_close(found, 11 / 16 * (of_main + 0.4 * of_auxiliary))
    alone = task().loss(lambda _: Logits(main, None), data, part, 1)
    torch.testing.assert_close(alone, 11 / 16 * of_main)


def test_what_is_dropped_is_a_function_of_seed_step_part_and_rank():
    def loss(step=1, part=slice(0, 2), **changes):
        ours, data = task(drop_path=0.5, **changes), batch(2)
        images, labels = (torch.cat([t, t]) for t in (data.images_BCSS, data.labels_BSS))
        twice = MaskedBatch(images, labels, data.keys * 2)
        return float(ours.loss(ours.model, twice, part, step).detach())

    torch.manual_seed(1)
    assert loss() == loss()
    others = loss(step=2), loss(part=slice(2, 4)), loss(rank=1), loss(seed=4)
    assert len({loss(), *others}) == 5
