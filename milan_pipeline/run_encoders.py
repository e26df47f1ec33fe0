"""Encoders in files: a run folder, or a `.safetensors` with the `.json` that describes it."""

from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.descriptions import Description, read_document
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.headless import (
    ALONE,
    LEFT_OUT,
    NORM_ARGUMENTS,
    Headless,
    headless_arguments,
)
from milan_pipeline.run_weights import encoder_file, encoder_part
from milan_pipeline.sums import read_checked
from milan_pipeline.vit import CANNOT_BUILD, build_encoder

WEIGHTS_NAME = "encoder.safetensors"
# The arguments of timm that `vit.build_encoder` takes, and what it calls them.
REBUILDABLE = {
    "model_name": "name",
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
}
# Those that it finds by itself.
DERIVED = {*ALONE, *LEFT_OUT, *NORM_ARGUMENTS, "global_pool"}


def read_run_encoder(spec: str, *, random_init: bool = False, seed: int = 0) -> Headless:
    """Read an encoder's description and weights, or draw these as pretraining would.

    Args:
        spec: a run folder, or the path of a `.safetensors`: of a pretrained encoder, or of a
            classifier, whose head is left out.
        random_init: draw weights by MILAN's initialisation (`vit.build_encoder`).
        seed: of that draw.

    Raises:
        MissingDataError: the files are not there.
        DataError: they are damaged.
        ConfigError: this timm does not have the model, or it is no transformer.
    """
    url = config_url(spec)
    arguments, mean, std = read_architecture(url)
    state = _drawn(read_config(url)[0], seed, url) if random_init else _read(weights_url(spec))
    return Headless(arguments, state, mean, std)


def read_architecture(url: str) -> tuple[dict[str, Any], list[float], list[float]]:
    """Read an encoder's description: what makes it without a head, and its pixels' mean and std.

    Raises:
        MissingDataError: it is not there.
        DataError: it is damaged.
        ConfigError: this timm does not have the model, or it is no transformer.
    """
    described, mean, std = read_config(url)
    if not timm.is_model(described["model_name"]):
        raise ConfigError(
            f"{url} names the model {described['model_name']!r}, which this timm "
            "does not have; install the version that trained it"
        )
    try:
        return headless_arguments(described), mean, std
    except ConfigError:
        raise
    except CANNOT_BUILD as error:
        raise DataError(f"{url} describes no encoder ({error}); export it again") from error


def config_url(spec: str) -> str:
    """Return where an encoder's description lies."""
    url = spec if spec.endswith(".safetensors") else storage.join(spec, WEIGHTS_NAME)
    return url.removesuffix(".safetensors") + ".json"


def weights_url(spec: str) -> str:
    """Return where an encoder's weights lie; of a local run that is not done, in a checkpoint.

    Raises:
        MissingDataError: a local run has none.
    """
    if spec.endswith(".safetensors"):
        return spec
    run = storage.local_path(spec)
    return storage.join(spec, WEIGHTS_NAME) if run is None else str(encoder_file(run))


def read_config(url: str) -> tuple[dict[str, Any], list[float], list[float]]:
    """Read `encoder.json`: {"timm": arguments of create_model, "mean": [...], "std": [...]}.

    Raises:
        MissingDataError: it is not there.
        DataError: it says something else.
    """
    document = read_document(url, Description, what="encoder", remedy="export it again")
    mean, std = ([float(value) for value in document[key]] for key in ("mean", "std"))
    return document["timm"], mean, std


def _read(url: str) -> dict[str, Tensor]:
    try:
        return encoder_part(safetensors.torch.load(read_checked(url)))
    except SafetensorError as error:
        raise DataError(f"{url} is damaged ({error}); export it again") from error


def _drawn(arguments: dict[str, Any], seed: int, url: str) -> dict[str, Tensor]:
    given = {name: value for name, value in arguments.items() if name in REBUILDABLE}
    other = sorted(arguments.keys() - given.keys() - DERIVED)
    if other:
        raise ConfigError(
            f"{url} has {other[0]!r}, which a random initialisation cannot reproduce; "
            "evaluate that run's trained weights only"
        )
    size = given.get("img_size")
    given["img_size"] = tuple(size) if isinstance(size, list) else size
    sizes: dict[str, Any] = {"image_size": None, "patch_size": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = build_encoder(**(sizes | {REBUILDABLE[name]: given[name] for name in given}))
    return dict(drawn.state_dict())
