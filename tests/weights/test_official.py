"""What the official code has no class for; the stage's test trains the likes of it."""

from typing import Any

import pytest
import timm
import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.weights.official import require_official


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reg_tokens": 4}, "has register tokens"),
        ({"pre_norm": True}, "has a norm before its blocks"),
        ({"qk_norm": True}, "has norms of queries and keys"),
        ({"init_values": 1e-5}, "has layer scale"),
        ({"qkv_bias": False}, "lacks biases"),
        ({"proj_bias": False}, "lacks biases"),
        ({"scale_attn_norm": True}, r"has the parameter 'blocks\.0\.attn\.norm\.weight'"),
    ],
)
def test_an_encoder_that_is_not_plain_is_refused_by_name(changes, reason):
    with torch.device("meta"):
        plain: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0)
        different: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0, **changes)
    require_official(plain)
    with pytest.raises(ConfigError, match=rf"the encoder {reason}, .*--form timm"):
        require_official(different)
