"""Lay weights out as transformers does: `ViTModel`, and two classes of classifiers.

A classifier that pools its class token is a `ViTForImageClassification`. That class cannot take the
mean of the patches. `BeitForImageClassification` can: without relative positions and layer scale it
is a plain ViT that norms the mean. It has no bias of the keys. A softmax does not notice that: this
bias adds the same to all scores of a query.

Names are those of the models on the Hub: transformers 4 uses them, transformers 5 renames them when
it loads them.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.weight_files import json_bytes
from milan_pipeline.weights.export import ClassHead, encoder_with, licence_of, weights_bytes
from milan_pipeline.weights.official import differences_from_plain


def huggingface_files(
    model: Any, description: Mapping[str, Any], head: ClassHead | None = None
) -> dict[str, bytes]:
    """Lay a model out as transformers does: `from_pretrained(FOLDER, ...)`.

    Args:
        model: of timm, with its weights.
        description: as `encoder.json` has it.
        head: of a classifier; None for an encoder.

    Returns:
        The bytes of each file, by name.

    Raises:
        ConfigError: transformers cannot express the model.
    """
    config, state = huggingface_model(model, description, head)
    size, pixels = config["image_size"], (description["mean"], description["std"])
    preprocessor = (
        preprocessor_config(size, *pixels)
        if head is None
        else cropping_preprocessor_config(size, head.crop_pct, *pixels)
    )
    return {
        "model.safetensors": weights_bytes(state),
        "config.json": json_bytes(config | {"torch_dtype": "float32"} | licence_of(description)),
        "preprocessor_config.json": json_bytes(preprocessor),
    }


def huggingface_model(
    model: Any, description: Mapping[str, Any], head: ClassHead | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return `config.json` and weights of the class of transformers that computes the same.

    Arguments are those of `huggingface_files`.

    Raises:
        ConfigError: there is none.
    """
    if head is not None:
        return _classifier(model, description, head)
    return vit_model_config(model), vit_model_state(model.state_dict())


def _classifier(
    model: Any, description: Mapping[str, Any], head: ClassHead
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return `config.json` and weights of the class of transformers that computes the same."""
    state = dict(model.state_dict())
    of_mean = "fc_norm.weight" in state
    if not isinstance(model, VisionTransformer) or model.global_pool != POOLED[of_mean]:
        raise _inexpressible("is no plain VisionTransformer of timm")
    last = {name: state.pop(f"head.{name}") for name in ("weight", "bias")}
    # Of the plain encoder, the norm that comes after pooling is the last norm.
    plain = {name.replace("fc_norm.", "norm."): value for name, value in state.items()}
    arguments = {k: v for k, v in description["timm"].items() if k not in NOT_OF_A_PLAIN}
    config = vit_model_config(
        encoder_with(plain, {**description, "timm": {**arguments, "global_pool": "token"}})
    )
    labels = head.names or tuple(f"class {number}" for number in range(head.outputs))
    config |= {
        "architectures": ["ViTForImageClassification"],
        "id2label": {str(number): name for number, name in enumerate(labels)},
        "label2id": {name: number for number, name in enumerate(labels)},
    }
    named = vit_model_state(plain)
    if of_mean:
        config |= BEIT
        named = _beit_state(named)
    prefix = "beit" if of_mean else "vit"
    named = {f"{prefix}.{name}": value for name, value in named.items()}
    return config, named | {f"classifier.{name}": value for name, value in last.items()}


def _beit_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of `ViTModel` under the names of `BeitModel`, whose last norm is a pooler's.

    Queries and values get zero biases where they have none.
    """
    found = {}
    for name, value in state.items():
        if not name.endswith("attention.key.bias"):
            found[name.replace("layernorm.", "pooler.layernorm.", 1) if name in LAST else name] = (
                value
            )
    for name in [
        n for n in found if n.endswith(("attention.query.weight", "attention.value.weight"))
    ]:
        zeros = torch.zeros(len(found[name]))
        found.setdefault(f"{name.removesuffix('weight')}bias", zeros)
    return found


POOLED = {True: "avg", False: "token"}
NOT_OF_A_PLAIN = ("num_classes", "global_pool", "fc_norm")
LAST = ("layernorm.weight", "layernorm.bias")
BEIT = {
    "architectures": ["BeitForImageClassification"],
    "model_type": "beit",
    "use_mean_pooling": True,
    "use_absolute_position_embeddings": True,
    "use_relative_position_bias": False,
    "use_shared_relative_position_bias": False,
    "use_mask_token": False,
    "layer_scale_init_value": 0.0,
    "drop_path_rate": 0.0,
}
"""What makes a BEiT of a ViT, if its weights are named like that."""
BICUBIC = 3  # PIL.Image.Resampling's number
OUTER = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
IN_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
QKV = ("query", "key", "value")


def vit_model_config(encoder: VisionTransformer) -> dict[str, Any]:
    """Return `config.json` of the `ViTModel` that computes what the encoder does.

    Raises:
        ConfigError: `ViTModel` cannot express the encoder; what it lacks is named.
    """
    for reason in differences_from_plain(encoder):
        raise _inexpressible(reason)
    block: Any = encoder.blocks[0]
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "image_size": encoder.patch_embed.img_size[0],
        "patch_size": encoder.patch_embed.patch_size[0],
        "num_channels": encoder.patch_embed.proj.in_channels,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "qkv_bias": block.attn.qkv.bias is not None,
        "layer_norm_eps": encoder.norm.eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "encoder_stride": encoder.patch_embed.patch_size[0],
    }


def preprocessor_config(size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Return `preprocessor_config.json` for square views of `size` pixels."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def cropping_preprocessor_config(
    size: int, crop_pct: float, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """Return `preprocessor_config.json` of the view that a classifier is scored on.

    Args:
        size: height and width of the view, in pixels.
        crop_pct: `size` as a share of the shorter side that the image is first resized to.
        mean: of each channel of the pixels in [0, 1].
        std: likewise.
    """
    return preprocessor_config(size, mean, std) | {
        # The one processor of all versions that resizes the shorter side and cuts the middle.
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "size": {"shortest_edge": math.floor(size / crop_pct)},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
    }


def vit_model_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an encoder's weights under the names of `ViTModel`, unchanged but for the split qkv.

    Args:
        state: under timm's names.

    Raises:
        ConfigError: `ViTModel` has no place for one of them.
    """
    return {renamed: part for name in state for renamed, part in _renamed(name, state[name])}


def _renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a parameter's new name and value; three of each for the joined qkv."""
    if name in OUTER:
        yield OUTER[name], tensor
        return
    layer, _, kind = name.rpartition(".")
    if layer in OUTER:
        yield f"{OUTER[layer]}.{kind}", tensor
        return
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", layer)
    number, place = found.groups() if found else ("", "")
    new = f"encoder.layer.{number}"
    if place in IN_BLOCK:
        yield f"{new}.{IN_BLOCK[place]}.{kind}", tensor
    elif place == "attn.qkv":
        for part, value in zip(QKV, tensor.chunk(3), strict=True):
            yield f"{new}.attention.attention.{part}.{kind}", value
    else:
        raise _inexpressible(f"has the parameter {name!r}")


def _inexpressible(reason: str) -> ConfigError:
    return ConfigError(
        f"the encoder {reason}, which ViTModel of transformers cannot express; export it with "
        "--form timm"
    )
