"""Encoders by timm's names: with weights that timm fetches, or random ones."""

from typing import Any

import timm

from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.headless import Headless, headless_arguments
from milan_pipeline.vit import CANNOT_BUILD

CANNOT_FETCH = (*CANNOT_BUILD, LookupError, OSError)


def read_timm_encoder(name: str, *, random_init: bool = False) -> Headless:
    """Return timm's model by a name, with the pretrained weights of its tag.

    Args:
        name: `vit_base_patch16_224`, whose weights are to be drawn by timm's own initialisation, or
            with a tag: `vit_base_patch16_224.mae`, which timm fetches once and keeps.
        random_init: fetch none.

    Raises:
        MissingDataError: timm knows no such name.
        ConfigError: it knows no such tag, cannot fetch the weights, or it is no transformer.
    """
    config = _known(name)
    try:
        arguments = headless_arguments({"model_name": architecture_of(name)})
    except ConfigError:
        raise
    except CANNOT_BUILD as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"--encoder {name!r} cannot be built ({reason}); choose another of timm's models"
        ) from error
    state = None if random_init or not is_pretrained(name) else _fetched(name)
    return Headless(arguments, state, list(config.mean), list(config.std))


def is_pretrained(name: str) -> bool:
    """Tell whether a name of timm asks for weights: it has a tag."""
    return "." in name


def architecture_of(name: str) -> str:
    """Return a name of timm without its tag."""
    return name.partition(".")[0]


def _known(name: str) -> Any:
    """Return timm's entry on a name's weights: their mean, std and where they are."""
    if ":" in name or "/" in name or not timm.is_model(name):
        raise MissingDataError(
            f"--encoder {name!r} is neither a run folder, nor a .safetensors, nor a name that timm "
            "knows; `timm.list_models('vit*')` names some"
        )
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        tags = timm.list_pretrained(architecture_of(name) + ".*")
        raise ConfigError(
            f"--encoder {name!r} has a tag that timm does not know; choose "
            + (" or ".join(tags) or "it without one: timm has no weights of it")
        ) from error


def _fetched(name: str) -> dict[str, Any]:
    try:
        return dict(timm.create_model(name, pretrained=True, num_classes=0).state_dict())
    except CANNOT_FETCH as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the weights of --encoder {name!r} cannot be had ({reason}); go online once, or leave "
            "away its tag for random weights"
        ) from error
