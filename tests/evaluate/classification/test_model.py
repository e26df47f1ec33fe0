"""A head on an encoder: which weights it begins from, and how it pools."""

import pytest
import timm
import torch

from milan_pipeline.encoders.load import load_backbone
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.classification.model import make_classifier


def encoder(spec="timm:test_vit"):
    """An encoder whose final norm is not as it was made."""
    backbone = load_backbone(spec, image_size=32, seed=1)
    with torch.no_grad():
        backbone.model.get_parameter("norm.weight").fill_(2.0)
    return backbone


def classifier(backbone, pool="mean", seed=0, drop_path=0.1):
    return make_classifier(backbone, classes=7, pool=pool, drop_path=drop_path, seed=seed)


@pytest.mark.parametrize("spec", ["timm:test_vit", "timm:eva02_tiny_patch14_224"])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_the_encoders_weights_are_kept_and_timm_makes_the_architecture_again(spec, pool):
    backbone = load_backbone(spec, seed=1)
    model, arguments = classifier(backbone, pool)
    again = timm.create_model(**arguments)
    again.load_state_dict(model.state_dict(), strict=True)
    given = backbone.model.state_dict()
    kept = {name: value for name, value in model.state_dict().items() if name in given}
    own = {name for name in given if not name.startswith("norm.")}
    assert own <= kept.keys()
    assert all(torch.equal(value, given[name]) for name, value in kept.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_mean_of_the_patches_gets_a_new_norm_and_cls_keeps_the_encoders():
    backbone = encoder()
    images = torch.rand(2, 3, 32, 32)
    backbone.model.eval()
    mean, cls = (classifier(backbone, pool)[0].eval() for pool in ("mean", "cls"))
    assert (mean.fc_norm.weight == 1).all()
    assert (cls.norm.weight == 2).all()
    with torch.no_grad():
        tokens = backbone.model.forward_features(images)
        expected = tokens[:, 0] @ cls.head.weight.T
        torch.testing.assert_close(cls(images), expected)
        plain = timm.create_model("test_vit", img_size=32, num_classes=7, global_pool="avg")
        plain.load_state_dict(mean.state_dict())
        torch.testing.assert_close(mean(images), plain.eval()(images))


def test_the_head_starts_as_milans_and_belongs_to_the_seed():
    backbone = encoder()
    heads = [classifier(backbone, seed=seed)[0].head for seed in (0, 0, 1)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    assert float(heads[0].weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not heads[0].bias.any()


def test_stochastic_depth_rises_to_the_last_block_and_is_not_exported():
    model, arguments = classifier(encoder(), drop_path=0.2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    assert rates == pytest.approx([0.2 * n / (len(rates) - 1) for n in range(len(rates))])
    assert "drop_path_rate" not in arguments


def test_an_encoder_without_class_token_cannot_pool_by_it():
    backbone = load_backbone("timm:vit_medium_patch16_gap_240", image_size=32)
    with pytest.raises(ConfigError, match="makes no classifier with --pool cls"):
        classifier(backbone, "cls")
    assert classifier(backbone, "mean")[1]["global_pool"] == "avg"
