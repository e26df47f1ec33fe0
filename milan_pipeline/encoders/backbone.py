"""Gives a transformer of timm without its head, made from arguments and weights (`EncoderParts`).

Every transformer gets one form: a last `norm` normalises the tokens, and pooling comes after it.
Models of timm that normalise after pooling (`fc_norm`) get that norm before pooling.

Legend: B batch, N tokens, P of them no patches (CLS, registers), E width.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError, MismatchError, reason_of
from milan_pipeline.models.positions import resample_positions
from milan_pipeline.models.vit import CANNOT_BUILD

# A description may come from a stranger: it must not make timm fetch or unpickle anything.
FETCHING = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
OF_TRAINING = {"drop_rate", "drop_path_rate"}
LEFT_OUT = FETCHING | OF_TRAINING
ALONE = {"pretrained": False, "num_classes": 0}
# How each family of timm is made to normalise tokens before they are pooled; the first that fits.
NORMS: tuple[dict[str, bool], ...] = (
    {"final_norm": True, "fc_norm": False},
    {"use_post_transformer_norm": True, "use_fc_norm": False},
    {"fc_norm": False},
    {"use_fc_norm": False},
    {},
)
NORM_ARGUMENTS = {name for norm in NORMS for name in norm}
HEAD = ("head.", "head_dist.", "attn_pool.")


class EncoderParts(NamedTuple):
    """A transformer without its head, as arguments and weights.

    Attributes:
        arguments: from `backbone_arguments`.
        state: weights under timm's names, with or without those of a head; None: drawn at random.
        mean: of each channel of its pixels, in [0, 1].
        std: standard deviation of each channel of its pixels, in [0, 1].
    """

    arguments: dict[str, Any]
    state: dict[str, Tensor] | None
    mean: list[float]
    std: list[float]


def backbone_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that make the described model without a head, with a norm at its end.

    Args:
        arguments: of `timm.create_model`; those of head, pooling and dropout are left out.

    Returns:
        Plain JSON, `img_size` included.

    Raises:
        AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError: timm cannot build
            it; `vit.CANNOT_BUILD` has them all.
        ConfigError: it is no transformer that gives a token for each patch.
    """
    own = {key: value for key, value in arguments.items() if key not in LEFT_OUT} | ALONE
    settled: dict[str, Any] = json.loads(_settled(json.dumps(own)))
    return settled


@functools.lru_cache(maxsize=64)
def _settled(described: str) -> str:
    """Do the work of `backbone_arguments`, from JSON to JSON: timm builds a model for each try."""
    own: dict[str, Any] = json.loads(described)
    names = _outline(own).state_dict()
    base = {key: value for key, value in own.items() if key not in {*NORM_ARGUMENTS, "global_pool"}}
    # RADIO's have no norm at their end, and no weights for one.
    normed = any(name.startswith(("norm.", "fc_norm.")) for name in names)
    norms = NORMS if normed else ({key: own[key] for key in own if key in NORM_ARGUMENTS},)
    failure: Exception | None = None
    for norm, pool in itertools.product(norms, ("token", "")):
        settled = base | norm | {"global_pool": pool}
        try:
            model = _outline(settled)
        except CANNOT_BUILD as error:
            failure = error
            continue
        size = _require_tokens(model, settled["model_name"])
        return json.dumps({**settled, "img_size": size})
    raise failure or RuntimeError("nothing was tried")


def assemble(
    parts: EncoderParts,
    *,
    origin: str,
    image_size: int | None = None,
    drop_path: float = 0.0,
    seed: int = 0,
) -> tuple[nn.Module, dict[str, Any]]:
    """Make a transformer, on the CPU, and the arguments that make its architecture again.

    Args:
        parts: what it is made of.
        origin: what errors call it.
        image_size: pixels of a side; positions are resampled as the official code does (see
            `positions`). None is its own.
        drop_path: rate of stochastic depth at the last block.
        seed: of weights to be drawn; torch's global random state stays as it is.

    Raises:
        MismatchError: the weights do not fit the architecture.
        ConfigError: it cannot be had for that image size.
    """
    arguments = parts.arguments | ({"drop_path_rate": drop_path} if drop_path else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(**arguments)
    if parts.state is not None:
        try:
            model.load_state_dict(without_head(parts.state), strict=True)
        except RuntimeError as error:
            raise MismatchError(
                f"--encoder {origin!r} has weights that do not fit: {reason_of(error)}"
            ) from error
    if image_size is not None and arguments["img_size"] != image_size:
        _resize(model, image_size, origin)
        arguments["img_size"] = image_size
    return model, arguments


def without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out a head's weights, and rename a norm of pooled tokens to one of all tokens."""
    kept = {key: value for key, value in state.items() if not key.startswith(HEAD)}
    return {_renamed(key): value for key, value in kept.items()}


def _renamed(key: str) -> str:
    return key.removeprefix("fc_") if key.startswith("fc_norm.") else key


def _outline(arguments: Mapping[str, Any]) -> Any:
    """Build a model without memory for its weights."""
    with torch.device("meta"):
        return timm.create_model(**arguments)


def _require_tokens(model: Any, name: str) -> int | list[int]:
    """Return a model's image size; refuse a model that gives no tokens (B, P + L, E)."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple) and hasattr(model, "num_prefix_tokens"):
        height, width = size
        pixels_BCHW = torch.empty(1, 3, height, width, device="meta")
        shape = model.eval().forward_features(pixels_BCHW).shape
        patches = model.patch_embed.num_patches
        if tuple(shape) == (1, model.num_prefix_tokens + patches, model.num_features):
            height, width = _covered(model.patch_embed, size)
            return height if height == width else [height, width]
    raise ConfigError(
        f"--encoder {name!r} ({type(model).__name__}) gives no token for each patch; choose a "
        "plain one such as 'vit_base_patch16_224'"
    )


def _covered(patch_embed: Any, size: tuple[int, int]) -> Iterator[int]:
    """Yield height and width of what the patches cover: SO400M/14 sees 378 of its 384 pixels."""
    for whole, count, patch in zip(
        size, patch_embed.grid_size, patch_embed.patch_size, strict=True
    ):
        plain = whole // patch == count  # and not patches of a smaller feature map
        yield int(count * patch if plain else whole)


def _resize(model: Any, image_size: int, origin: str) -> None:
    if not hasattr(model, "set_input_size"):
        raise ConfigError(
            f"--encoder {origin!r} ({type(model).__name__}) takes images of its own size only; "
            f"leave out the {image_size} pixels"
        )
    patch = max(model.patch_embed.patch_size)
    if image_size % patch:
        raise ConfigError(
            f"--encoder {origin!r} cannot cut images of {image_size} pixels into patches; choose a "
            f"multiple of {patch}"
        )
    grid, table_1NE = model.patch_embed.grid_size, getattr(model, "pos_embed", None)
    model.set_input_size(img_size=(image_size, image_size))
    if table_1NE is not None:  # in place of timm's, which are antialiased
        resampled_1NE = resample_positions(table_1NE.detach(), grid, model.patch_embed.grid_size)
        model.pos_embed = nn.Parameter(resampled_1NE, requires_grad=table_1NE.requires_grad)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A transformer of timm without a classifier.

    Attributes:
        name: what tables call it.
        model: on the CPU, in training mode, all of it trainable; `forward_features` gives tokens
            after the final norm, (B, N, E), of which `num_prefix_tokens` are no patches.
        arguments: plain JSON; `timm.create_model(**arguments)` makes the architecture again.
        mean: of each channel of its pixels, in [0, 1].
        std: standard deviation of each channel of its pixels, in [0, 1].
    """

    name: str
    model: nn.Module
    arguments: dict[str, Any]
    mean: list[float]
    std: list[float]

    @property
    def image_size(self) -> int:
        """Side of the images that it takes, in pixels.

        Raises:
            ConfigError: they are not square, as views are.
        """
        size = self.arguments["img_size"]
        if not isinstance(size, int):
            raise ConfigError(
                f"--encoder {self.name!r} takes {size[0]}x{size[1]} pixels and views are square; "
                "give --image-size"
            )
        return size
