"""The loss of fine-tuning: timm's parts put together, drawn by seed, step, part and rank."""

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing

from milan_pipeline.core.keyed_random import seeded_globals
from milan_pipeline.evaluate.classification.task import Classification, ClassificationConfig
from milan_pipeline.evaluate.classification.views import LabelledBatch
from milan_pipeline.images.crops import Pixels
from milan_pipeline.training.optim import set_learning_rate

CONFIG = ClassificationConfig(
    batch=1024,
    epochs=100,
    warmup_epochs=5,
    base_lr=1e-4,
    min_lr=1e-6,
    layer_decay=0.65,
    weight_decay=0.05,
    smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    erasing=0.25,
    bf16=False,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
    seed=3,
)
PLAIN = dataclasses.replace(CONFIG, mixup=0.0, cutmix=0.0, erasing=0.0, smoothing=0.0)


def task(config=CONFIG, rank=0, drop_path=0.5):
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=5, drop_path_rate=drop_path)
    return Classification(model, config, classes=5, rank=rank)


def batch(size):
    generator = torch.Generator().manual_seed(size)
    images = torch.randint(0, 256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return LabelledBatch(images, torch.arange(size) % 5, [str(n) for n in range(size)])


def loss(task, data=None, part=slice(0, 6), step=1):
    data = data or batch(8)
    return float(task.loss(task.model, data, part, step).detach())


def test_without_any_augmentation_it_is_cross_entropy():
    plain = task(PLAIN, drop_path=0.0)
    data = batch(8)
    logits = plain.model(Pixels(CONFIG.mean, CONFIG.std, torch.device("cpu"))(data.images_BCHW))
    expected = F.cross_entropy(logits[2:6], data.labels_B[2:6])
    assert loss(plain, data, slice(2, 6)) == pytest.approx(float(expected.detach()), rel=1e-5)
    smoothed = task(dataclasses.replace(PLAIN, smoothing=0.1), drop_path=0.0)
    expected = F.cross_entropy(logits[:6], data.labels_B[:6], label_smoothing=0.1)
    assert loss(smoothed, data) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_what_is_drawn_is_a_function_of_step_part_and_rank():
    torch.manual_seed(1)
    first, again = task(), task()
    assert loss(first) == loss(first) == loss(again)
    assert loss(first, step=2) != loss(first)
    assert loss(task(rank=1)) != loss(first)
    assert loss(task(dataclasses.replace(CONFIG, seed=4))) != loss(first)
    part = loss(first, part=slice(2, 8))
    moved = LabelledBatch(*(field[2:] for field in batch(8)))
    assert loss(first, moved, slice(0, 6)) != part


def test_erasing_then_mixing_is_timms():
    """Every part by hand, in the order of the official code, with the same draws."""
    ours = task(dataclasses.replace(CONFIG, erasing=0.9), drop_path=0.0)
    data = batch(6)
    with seeded_globals("classification", 3, 1, 0):
        images = Pixels(CONFIG.mean, CONFIG.std, torch.device("cpu"))(data.images_BCHW)
        images = RandomErasing(0.9, mode="pixel", max_count=1, device="cpu")(images)
        mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=5)
        images, targets = mix(images, data.labels_B)
    log_probabilities = ours.model(images).log_softmax(dim=-1)
    expected = -(targets * log_probabilities).sum(dim=-1).mean()
    assert loss(ours, data) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_an_odd_batch_loses_no_image_and_everyone_is_mixed(size):
    """Mixup alone: with images of one value each, a pixel tells who was mixed with whom."""
    mixing = task(dataclasses.replace(PLAIN, mixup=0.8), drop_path=0.0)
    seen = {}

    def note(module, inputs):
        seen["images"] = inputs[0]

    mixing.model.register_forward_pre_hook(note)
    values = torch.arange(size, dtype=torch.uint8)[:, None, None, None] * 40
    data = LabelledBatch(values.expand(size, 3, 32, 32), torch.arange(size), ["x"] * size)
    loss(mixing, data, slice(0, size))
    mixed = seen["images"][:, 0, 0, 0] * CONFIG.std[0] * 255 + CONFIG.mean[0] * 255
    assert len(mixed) == size
    weight = mix_weight(mixing)
    partners = [size - 1, *range(size - 1, 0, -1)]
    expected = [40 * (n * weight + p * (1 - weight)) for n, p in enumerate(partners)]
    torch.testing.assert_close(mixed, torch.tensor(expected), atol=1e-3, rtol=0)


@pytest.mark.parametrize("micro", [1, 2, 4, 7])
@pytest.mark.parametrize("size", [7, 8])
def test_images_are_mixed_across_the_parts_of_a_batch(size, micro):
    """The parts of a batch have its loss and its gradients, however small they are."""
    config = dataclasses.replace(CONFIG, erasing=0.9)
    whole, parted = task(config, drop_path=0.0), task(config, drop_path=0.0)
    data = batch(size)
    expected = whole.loss(whole.model, data, slice(0, size), 1)
    expected.backward()
    found = 0.0
    for start in range(0, size, micro):
        part = slice(start, min(start + micro, size))
        loss = parted.loss(parted.model, data, part, 1) * (part.stop - part.start) / size
        loss.backward()
        found += float(loss.detach())
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    gradients = [task.model.head.weight.grad for task in (whole, parted)]
    torch.testing.assert_close(*gradients)


def mix_weight(mixing):
    """The weight that timm draws for step 1."""
    with seeded_globals("classification", 3, 1, 0):
        return mixing._mix._params_per_batch()[0]


def test_learning_rates_are_the_official_ones():
    ours = task()
    assert ours.rate(5) == pytest.approx(4e-4)
    assert ours.rate(100) == pytest.approx(1e-6)
    scales = {group["lr_scale"] for group in ours.optimiser().param_groups}
    depth = len(ours.model.blocks)
    assert sorted(scales) == pytest.approx([0.65 ** (depth + 1 - n) for n in range(depth + 2)])


def test_a_step_moves_each_layer_at_its_own_rate_and_decays_matrices_alone():
    ours = task(dataclasses.replace(CONFIG, layer_decay=0.5, weight_decay=0.1))
    before = {name: p.detach().clone() for name, p in ours.model.named_parameters()}
    for parameter in ours.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser, depth = ours.optimiser(), len(ours.model.blocks)
    set_learning_rate(optimiser, 0.01)
    optimiser.step()
    # AdamW's first step has the size of the rate, whatever the gradient.
    expected = {
        "head.weight": (0, 0.1),
        "head.bias": (0, 0.0),
        f"blocks.{depth - 1}.mlp.fc1.weight": (1, 0.1),
        "blocks.0.norm1.weight": (depth, 0.0),
        "patch_embed.proj.weight": (depth + 1, 0.1),
        "pos_embed": (depth + 1, 0.0),
    }
    after = dict(ours.model.named_parameters())
    for name, (above, decay) in expected.items():
        rate = 0.01 * 0.5**above
        wanted = before[name] * (1 - rate * decay) - rate
        torch.testing.assert_close(after[name].detach(), wanted, atol=1e-7, rtol=1e-5)


def test_checkpointed_blocks_give_the_same_gradients():
    def gradient(checkpointing):
        ours = task(dataclasses.replace(CONFIG, gradient_checkpointing=checkpointing))
        ours.loss(ours.model, batch(8), slice(0, 6), 1).backward()
        return ours.model.patch_embed.proj.weight.grad

    torch.testing.assert_close(gradient(True), gradient(False))
