"""MILAN's official code: its names of the student's parameters, and which encoders it can load.

The sizes of a student are read from the shapes of its weights under official names. An encoder that
differs from a plain ViT cannot be loaded by code that only knows plain ones.

Legend: E encoder width, C decoder width, D target width, p pixels of a patch.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from timm.layers.mlp import Mlp
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.models.student import Student


def official_name(name: str) -> str:
    """Return what the official MILAN code calls a parameter of `Student`."""
    part, _, rest = name.partition(".")
    return rest if part == "encoder" or rest == "mask_token" else f"decoder_{rest}"


def official_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a `Student` with the prompting decoder under official names."""
    return {official_name(name): tensor for name, tensor in weights.items()}


def require_official(encoder: VisionTransformer) -> None:
    """Refuse an encoder that the official code has no class for.

    Raises:
        ConfigError: it differs from a plain ViT; the first difference is named.
    """
    # Unlike transformers, the official code cannot do without the biases of the joined qkv.
    blocks: list[Any] = list(encoder.blocks)
    unbiased = ["lacks biases"] if any(block.attn.qkv.bias is None for block in blocks) else []
    for reason in [*differences_from_plain(encoder), *unbiased]:
        raise ConfigError(
            f"the encoder {reason}, which MILAN's official code cannot load; export it with "
            "--form timm"
        )


def load_official(
    student: Student, state: Mapping[str, Tensor], *, what: str = "the official state"
) -> None:
    """Load weights under official names into `student`, all of them and no others, unchanged.

    Raises:
        MismatchError: a name is missing or unknown, or a shape differs.
    """
    require_fitting(official_state(student.state_dict()), state, what=what)
    student.load_state_dict({name: state[official_name(name)] for name in student.state_dict()})


def require_fitting(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, what: str
) -> None:
    """Refuse a state unless it has exactly the wanted names, each in the wanted shape.

    Args:
        wanted: what the student has.
        state: what it is to get.
        what: names the state in the error.

    Raises:
        MismatchError: it has others; the first names of each kind are in the message.
    """
    shapes = [
        f"{name} of shape {tuple(state[name].shape)} where {tuple(wanted[name].shape)} is needed"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    faults = [
        f"{verb} {_listing(names)}"
        for verb, names in (
            ("lacks", sorted(wanted.keys() - state.keys())),
            ("has the unknown", sorted(state.keys() - wanted.keys())),
            ("has", shapes),
        )
        if names
    ]
    if faults:
        raise MismatchError(
            f"{what} {' and '.join(faults)}; give the weights of a plain ViT, or "
            "build the student with their sizes"
        )


def _listing(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class DecoderSizes(NamedTuple):
    """A decoder's C, its number of blocks, and D, read from the shapes of a checkpoint."""

    width: int
    depth: int
    target_width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialSizes:
    """A student's sizes, read from the shapes of a checkpoint.

    Attributes:
        patch_size: p.
        side: rows, and columns, of patches.
        width: E.
        depth: blocks of the encoder.
        decoder: None for an encoder alone.
    """

    patch_size: int
    side: int
    width: int
    depth: int
    decoder: DecoderSizes | None

    @property
    def image_size(self) -> int:
        """Height and width of a view, in pixels."""
        return self.side * self.patch_size


def require_pretrained(state: Mapping[str, Tensor], *, what: str) -> None:
    """Refuse the weights of a classifier.

    Args:
        state: the weights under official names.
        what: names the file in the error.

    Raises:
        MismatchError: they have a classifier's head, or its norm of the pooled tokens.
    """
    extra = sorted(name for name in state if name.startswith(("fc_norm.", "head.")))
    if extra:
        raise MismatchError(
            f"{what} is a fine-tuned classifier (it has {_listing(extra)}); give the checkpoint "
            "of pretraining that it was fine-tuned from"
        )


def encoder_within(state: Mapping[str, Tensor], *, what: str) -> tuple[dict[str, Tensor], str]:
    """Return the encoder whose names all have a prefix, as that of a larger model.

    Args:
        state: the weights.
        what: names the file in the error.

    Returns:
        The weights without that prefix, and it; all of them and "" where names have none.

    Raises:
        MismatchError: there are several encoders.
    """
    last = "pos_embed"
    ends = (name.removesuffix(last) for name in state if name.endswith(last))
    found = sorted(p for p in ends if f"{p}cls_token" in state)
    if not found or "" in found:
        return dict(state), ""
    if len(found) > 1:
        raise MismatchError(
            f"{what} holds several encoders, under {_listing(found)}; save the weights of one "
            "alone, best as .safetensors"
        )
    prefix = found[0]
    return {n.removeprefix(prefix): w for n, w in state.items() if n.startswith(prefix)}, prefix


def sizes_of(state: Mapping[str, Tensor], *, what: str = "the official state") -> OfficialSizes:
    """Read the sizes of a student from its weights under official names.

    A state without any `decoder_*` and without `mask_token` is an encoder alone.

    Args:
        state: the weights.
        what: names the file in the error.

    Raises:
        MismatchError: a tensor needed for a size is missing or has another number of dimensions.
        ConfigError: the positions are those of no square grid.
    """
    shape = functools.partial(_shape, state, what)
    patches, width = shape("pos_embed", 3)[1] - 1, shape("cls_token", 3)[2]
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise ConfigError(
            f"pos_embed of {what} holds {patches} patches beside CLS, which is no square grid; "
            "import the checkpoint of a student that sees square images"
        )
    has_decoder = any(name.startswith("decoder_") or name == "mask_token" for name in state)
    return OfficialSizes(
        patch_size=shape("patch_embed.proj.weight", 4)[3],
        side=side,
        width=width,
        depth=_depth(state, "blocks."),
        decoder=_decoder_sizes(state, what) if has_decoder else None,
    )


def _decoder_sizes(state: Mapping[str, Tensor], what: str) -> DecoderSizes:
    return DecoderSizes(
        width=_shape(state, what, "mask_token", 3)[2],
        depth=_depth(state, "decoder_blocks."),
        target_width=_shape(state, what, "decoder_pred.weight", 2)[0],
    )


def _shape(state: Mapping[str, Tensor], what: str, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state or state[name].ndim != dimensions:
        actual = f"has it in shape {tuple(state[name].shape)}" if name in state else "lacks it"
        raise MismatchError(
            f"{what} needs {name} of {dimensions} dimensions and {actual}; give a checkpoint of "
            "MILAN's official code"
        )
    return tuple(state[name].shape)


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Count the blocks; at least 1, so that a state without blocks is an error later."""
    names = (name.removeprefix(prefix) for name in state if name.startswith(prefix))
    return max(1, len({name.partition(".")[0] for name in names}))


PLAIN_PARAMETER = re.compile(
    r"cls_token|pos_embed|"
    r"(patch_embed\.proj|norm|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))\.(weight|bias)"
)


def differences_from_plain(vit: VisionTransformer) -> Iterator[str]:
    """Yield how a ViT differs from a plain one, such as "has register tokens".

    Later differences may follow from the first. Missing biases of the joined queries, keys and
    values are no difference, since other code can often do without them.
    """
    plain = type(vit) is VisionTransformer
    if not plain or not all(type(block) is Block for block in _blocks(vit)):
        yield "is no plain VisionTransformer of timm"
    height, width = vit.patch_embed.img_size
    p, q = vit.patch_embed.patch_size
    if height != width or p != q:
        yield f"sees {height}x{width} pixels in patches of {p}x{q}"
    if vit.reg_token is not None:
        yield "has register tokens"
    if not vit.has_class_token or vit.no_embed_class or vit.pos_embed is None:
        yield "has no class token with a position"
    if not all(isinstance(norm, nn.Identity) for norm in (vit.norm_pre, vit.patch_embed.norm)):
        yield "has a norm before its blocks"
    if not isinstance(vit.norm, nn.LayerNorm):
        yield "does not end in a norm of all tokens"
    yield from _block_differences(vit)
    others = (name for name in vit.state_dict() if not PLAIN_PARAMETER.fullmatch(name))
    yield from (f"has the parameter {name!r}" for name in others)


def _block_differences(vit: VisionTransformer) -> Iterator[str]:
    blocks = _blocks(vit)
    if not all(isinstance(block.ls1, nn.Identity) for block in blocks):
        yield "has layer scale"
    if not all(isinstance(block.attn.q_norm, nn.Identity) for block in blocks):
        yield "has norms of queries and keys"
    if not all(type(block.mlp) is Mlp and _is_gelu(block.mlp.act) for block in blocks):
        yield "has another MLP than linear, GELU, linear"
    joined = [block.attn.qkv for block in blocks]
    layers = [layer for layer in vit.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if any(layer.bias is None for layer in layers if layer not in joined):
        yield "lacks biases"
    if len({norm.eps for norm in vit.modules() if isinstance(norm, nn.LayerNorm)}) != 1:
        yield "has norms of different epsilon"


def _blocks(vit: VisionTransformer) -> list[Any]:
    return list(vit.blocks)


def _is_gelu(activation: nn.Module) -> bool:
    return isinstance(activation, nn.GELU) and activation.approximate == "none"
