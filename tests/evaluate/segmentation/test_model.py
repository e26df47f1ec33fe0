"""A head on a ViT: shapes, depths, what is trained, and any size of image."""

import pytest
import timm
import torch
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.segmentation.model import (
    HeadSpec,
    Pyramid,
    UPerNetHead,
    depths_of,
    make_segmenter,
)
from milan_pipeline.training.optim import layer_decay_groups
from tests.support.segment import VIT


def make(head="upernet", **changes):
    spec = HeadSpec(head=head, channels=8, classes=5)
    return make_segmenter(VIT, spec, **changes)


@pytest.mark.parametrize(
    ("blocks", "taken"),
    [
        (12, [3, 5, 7, 11]),
        (24, [7, 11, 15, 23]),
        (6, [1, 2, 3, 5]),
        (2, [0, 0, 1, 1]),
        (1, [0] * 4),
    ],
)
def test_the_depths_of_beit_and_mae_and_of_shallow_vits(blocks, taken):
    assert depths_of(blocks) == taken


def test_maps_at_four_strides():
    maps = Pyramid(6).eval()([torch.zeros(2, 6, 5, 4)] * 4)
    assert [tuple(m.shape[-2:]) for m in maps] == [(20, 16), (10, 8), (5, 4), (3, 2)]


@pytest.mark.parametrize("head", ["upernet", "linear"])
@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
def test_logits_are_as_large_as_the_images(head, size):
    logits = make(head).eval()(torch.randn(2, 3, *size))
    assert logits.main_BYHW.shape == (2, 5, *size)
    assert logits.main_BYHW.dtype == torch.float32
    assert logits.auxiliary_BYHW is None


def test_upernet_has_an_auxiliary_head_in_training():
    logits = make()(torch.randn(2, 3, 32, 32))
    assert logits.auxiliary_BYHW.shape == logits.main_BYHW.shape == (2, 5, 32, 32)


@pytest.mark.parametrize(("channels", "auxiliary"), [(768, 256), (512, 256), (96, 96)])
def test_the_heads_have_mmsegmentations_shapes(channels, auxiliary):
    """`mae-base_upernet`: fusion of four maps and 150 classes, and an FCN head of one block."""
    with torch.device("meta"):
        head = UPerNetHead(768, channels, 150)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes["decoder.fusion_block.0.weight"] == (channels, 4 * channels, 3, 3)
    assert shapes["decoder.psp.out_conv.0.weight"] == (channels, 768 + 4 * channels, 3, 3)
    assert shapes["classifier.1.weight"] == (150, channels, 1, 1)
    assert shapes["auxiliary.0.0.weight"] == (auxiliary, 768, 3, 3)
    assert shapes["auxiliary.2.weight"] == (150, auxiliary, 1, 1)


@pytest.mark.parametrize("head", ["upernet", "linear"])
@pytest.mark.parametrize("freeze", [False, True])
def test_every_trained_parameter_has_a_gradient(head, freeze):
    model = make(head, freeze=freeze)
    logits = model(torch.randn(2, 3, 32, 32))
    parts = [part for part in logits if part is not None]
    sum(part.square().mean() for part in parts).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert any(name.startswith("encoder.") for name in trained) != freeze


def test_the_head_learns_at_full_rate():
    model = make()
    groups = layer_decay_groups(model, layer_decay=0.5, weight_decay=0.1, encoder=model.encoder)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    scales = {n: scale[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert {value for name, value in scales.items() if name.startswith("head.")} == {1.0}
    assert scales["encoder.blocks.3.mlp.fc1.weight"] == 0.5
    assert scales["encoder.patch_embed.proj.weight"] == 0.5**5


def test_the_encoder_begins_with_its_weights_and_the_seed_draws_the_head():
    encoder = timm.create_model(**VIT)
    before = torch.random.get_rng_state()
    one, same, other = (make(state=encoder.state_dict(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in encoder.state_dict().items():
        assert torch.equal(one.encoder.state_dict()[name], value)
    weights = [m.head.decoder.fusion_block[0].weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_stochastic_depth_rises_to_the_last_block():
    blocks = make(drop_path=0.3).encoder.blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_the_linear_head_reads_the_encoders_normed_patches():
    model = make("linear").eval()
    nn.init.uniform_(model.encoder.norm.weight)
    seen = []
    model.head.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 32, 32)
    model(images)
    patches_BLE = model.encoder.forward_features(images)[:, 1:]
    torch.testing.assert_close(seen[0].flatten(2).transpose(1, 2), patches_BLE)


def test_upernet_drops_a_tenth_of_the_channels_in_training_alone():
    head = make().head
    ones = torch.ones(50, 8, 2, 2)
    for dropping in (head.classifier[0], head.auxiliary[-2]):
        torch.manual_seed(0)
        dropped = (dropping.train()(ones) == 0).flatten(2)
        assert torch.equal(dropped.any(-1), dropped.all(-1))
        assert 0.05 < dropped.float().mean() < 0.15
        assert torch.equal(dropping.eval()(ones), ones)


def test_logits_are_enlarged_about_the_centres_of_patches():
    """A ramp over four columns of patches of 8 pixels, as a function of the pixel's centre."""
    model = make("linear")
    model.head = Ramp()
    found = model(torch.zeros(1, 3, 32, 32)).main_BYHW
    expected = ((torch.arange(32) + 0.5) / 8 - 0.5).clamp(0, 3)
    torch.testing.assert_close(found, expected.expand(1, 1, 32, 32))


class Ramp(nn.Module):
    def forward(self, _):
        return torch.arange(4.0).expand(1, 1, 4, 4), None


def test_what_takes_one_size_alone_is_refused():
    with pytest.raises(ConfigError, match="mixer"):
        make_segmenter(
            {"model_name": "mixer_s32_224", "num_classes": 0},
            HeadSpec(head="linear", channels=8, classes=5),
        )
