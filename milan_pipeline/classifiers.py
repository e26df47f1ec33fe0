"""A classifier: an encoder, what pools its tokens, and a linear head."""

from typing import Any

import timm
import torch
from torch import nn

from milan_pipeline.backbones import Backbone
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.vit import CANNOT_BUILD

HEAD_STD = 0.02
POOLS = {"mean": "avg", "cls": "token"}
# How timm's families are told to norm the mean of the tokens, in place of the tokens.
NORMS_OF_MEAN = {"fc_norm": True, "use_fc_norm": True, "use_post_transformer_norm": False}
DRAWN = ("head.", "fc_norm.")


def make_classifier(
    backbone: Backbone, *, classes: int, pool: str, drop_path: float, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Put a head on an encoder, as MILAN's official fine-tuning does.

    With `pool` "mean", the mean of the patch tokens is normed by a new LayerNorm in place of the
    encoder's own, which was trained to norm single tokens: so do MILAN's and MAE's `models_vit.py`.
    The head starts as a truncated normal of std 0.02, with zero biases: in MILAN's
    `main_finetune.py` the line of MAE's that makes it 2e-5 is commented out.

    Args:
        backbone: the encoder; its weights are copied.
        classes: outputs of the head.
        pool: "mean" of the patch tokens, or the "cls" token.
        drop_path: rate of stochastic depth at the last block; it rises linearly from 0.
        seed: of the head's weights; torch's global random state is left as it was.

    Returns:
        The model, on the CPU, all of it trainable, and the arguments with which
        `timm.create_model` makes it again (without stochastic depth).

    Raises:
        ConfigError: the encoder has no class token to pool by.
        MismatchError: a weight has no place.
    """
    norms = NORMS_OF_MEAN if pool == "mean" else {}
    arguments: dict[str, Any] = {
        **backbone.arguments,
        **{name: value for name, value in norms.items() if name in backbone.arguments},
        "num_classes": classes,
        "global_pool": POOLS[pool],
    }
    arguments.pop("drop_path_rate", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: Any = timm.create_model(**arguments, drop_path_rate=drop_path)
        except CANNOT_BUILD as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"--encoder {backbone.name!r} makes no classifier with --pool {pool} ({reason}); "
                "try the other --pool"
            ) from error
        nn.init.trunc_normal_(model.head.weight, std=HEAD_STD)
        nn.init.zeros_(model.head.bias)
    drawn = {name: value for name, value in model.state_dict().items() if name.startswith(DRAWN)}
    given = backbone.model.state_dict()
    if pool == "mean":
        given = {name: value for name, value in given.items() if not name.startswith("norm.")}
    try:
        model.load_state_dict(drawn | given, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise MismatchError(
            f"--encoder {backbone.name!r} has weights without a place in a classifier ({reason}); "
            "try the other --pool"
        ) from error
    classifier: nn.Module = model
    return classifier, arguments
