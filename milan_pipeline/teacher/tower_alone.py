"""Load an image tower from a file that open_clip does not: without text, or under other names.

People save the image tower alone, a compiled model (`_orig_mod.`), or a CLIP whose text tower is
one of transformers, for which open_clip needs the network. Only the image tower is used here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from open_clip.model import resize_pos_embed
from torch import nn

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.weights import (
    COMPILED,
    FITTING,
    VISUAL,
    of_another_architecture,
    plain_name,
    stored_tensors,
    tower_names,
)

BESIDE = ("logit_scale", "logit_bias")
"""Numbers of a CLIP that belong to neither tower."""


def names_alone(
    path: Path, names: Collection[str], own: Collection[str], config: Mapping[str, Any]
) -> dict[str, str] | None:
    """Return the names in a file by those of the tower; None if the file is for open_clip to load.

    Args:
        path: of the weights.
        names: of all that it holds.
        own: the names of the tower.
        config: of the model.

    Raises:
        ConfigError: it holds an image tower, but another one.
    """
    found = tower_names(names)
    if any(name.startswith(VISUAL) for name in map(plain_name, names)):
        has_text = any(not n.startswith((VISUAL, *BESIDE)) for n in map(plain_name, names))
        is_compiled = any(COMPILED in name for name in names)
        if has_text and not is_compiled and "hf_model_name" not in config["text_cfg"]:
            return None
    elif found.keys() != set(own):
        return None
    lacks, has = sorted(set(own) - found.keys()), sorted(found.keys() - set(own))
    if lacks or has:
        parts = [f"{word} {each[0]!r}" for word, each in (("lacks", lacks), ("has", has)) if each]
        raise ConfigError(
            f"{path} does not fit the architecture: its image tower {' and '.join(parts)}; "
            f"{FITTING}"
        )
    return found


def fill_alone(visual: nn.Module, path: Path, names: Mapping[str, str]) -> None:
    """Load a tower's weights.

    Args:
        visual: the tower; its positions are resampled as open_clip does it.
        path: of the weights.
        names: in the file, by those of the tower.

    Raises:
        ConfigError: they have other shapes.
    """
    stored = stored_tensors(path)
    state = {f"{VISUAL}{own}": stored[name] for own, name in names.items()}
    model = nn.Module()
    model.visual = visual
    resize_pos_embed(state, model)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise of_another_architecture(path, str(error)) from error
