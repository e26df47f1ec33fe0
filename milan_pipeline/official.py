"""The names that MILAN's official code gives the student's parameters."""

from collections.abc import Mapping
from typing import Any

from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.plain_vit import peculiarities
from milan_pipeline.student import Student


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
        ConfigError: it is one; its peculiarity is named.
    """
    # Unlike transformers, the official code cannot do without the biases of the joined qkv.
    blocks: list[Any] = list(encoder.blocks)
    unbiased = ["lacks biases"] if any(block.attn.qkv.bias is None for block in blocks) else []
    for reason in [*peculiarities(encoder), *unbiased]:
        raise ConfigError(
            f"the encoder {reason}, which MILAN's official code cannot load; export it by "
            "--form timm"
        )


def load_official(student: Student, state: Mapping[str, Tensor]) -> None:
    """Load weights under official names into `student`, all of them and no others, unchanged.

    Raises:
        MismatchError: a name is missing or unknown, or a shape differs.
    """
    require_fitting(official_state(student.state_dict()), state, what="the official state")
    student.load_state_dict({name: state[official_name(name)] for name in student.state_dict()})


def require_fitting(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], *, what: str
) -> None:
    """Refuse a state that has not just the wanted names, each in the wanted shape.

    Args:
        wanted: what the student has.
        state: what it is to get.
        what: names the state in the error.

    Raises:
        MismatchError: it has not; the first names of each kind are in the message.
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
            f"{what} {' and '.join(faults)}; build the student with the sizes of the state"
        )


def _listing(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
