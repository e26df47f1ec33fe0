"""What `--targets`, `--target-weight` and `--prior-from` may say."""

import pytest

from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.teachers import target_folders, target_weights

TWO = ("dino=b", "clip=a")


def test_folders_by_name_in_the_order_given():
    assert list(target_folders(TWO).items()) == [("dino", "b"), ("clip", "a")]
    assert target_folders(("one",)) == {"": "one"}
    assert target_folders(("clip=s3://bucket/x=1",)) == {"clip": "s3://bucket/x=1"}
    assert target_folders(("./split=train",)) == {"": "./split=train"}
    assert target_folders(("s3://bucket/split=train",)) == {"": "s3://bucket/split=train"}


def test_weights_by_name():
    assert target_weights(("dino=0.5",), ["dino", "clip"]) == {"dino": 0.5}
    assert list(target_weights(("dino=2", "clip=1"), ["dino", "clip"])) == ["clip", "dino"]


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("--targets b has no name", {"targets": ("clip=a", "b")}),
        ("--targets has the name clip twice", {"targets": ("clip=a", "clip=b")}),
        ("names no folder", {"targets": ("clip=", "dino=b")}),
        ("--target-weight vit=1 weighs no teacher", {"target_weight": ("vit=1",)}),
        ("--target-weight dino=x has no number", {"target_weight": ("dino=x",)}),
        ("--target-weight dino=0 is not above 0", {"target_weight": ("dino=0",)}),
        ("--target-weight dino=nan is not above 0", {"target_weight": ("dino=nan",)}),
        ("--target-weight has dino twice", {"target_weight": ("dino=1", "dino=2")}),
        ("--target-weight clip=2 weighs", {"targets": ("clip=a",), "target_weight": ("clip=2",)}),
        ("--prior-from vit chooses no teacher", {"prior_from": "vit"}),
        ("--prior-from clip chooses", {"targets": ("a",), "prior_from": "clip"}),
        ("is for --masking semantic and not random", {"prior_from": "clip", "masking": "random"}),
        ("--target-norm none does not change --loss cosine", {"target_norm": "none"}),
    ],
)
def test_what_does_not_fit_is_refused(said, options):
    with pytest.raises(ConfigError, match=said):
        Pretrain(images="i", out="o", **({"targets": TWO} | options))
