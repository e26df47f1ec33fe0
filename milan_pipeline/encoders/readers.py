"""Gives the parts of an encoder from a run folder, from a file, or by a name of timm."""

import os
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.core.hub import asking_hub
from milan_pipeline.encoders.backbone import (
    ALONE,
    LEFT_OUT,
    NORM_ARGUMENTS,
    EncoderParts,
    assemble,
    backbone_arguments,
)
from milan_pipeline.encoders.names import kind_of, of_a_hub, require_timm_name
from milan_pipeline.errors import ConfigError, DataError, MissingDataError, reason_of
from milan_pipeline.models.vit import CANNOT_BUILD, build_encoder
from milan_pipeline.models.weight_files import (
    ENCODER,
    PICKLED,
    plain_tensors,
    read_encoder_description,
)
from milan_pipeline.storage.checksums import read_checked
from milan_pipeline.training.checkpoints import HASHES, MODEL
from milan_pipeline.training.evaluations import BEST
from milan_pipeline.weights.run_weights import encoder_file, encoder_part

# Arguments of timm that `vit.build_encoder` takes, and its names for them.
REBUILDABLE = {
    "model_name": "name",
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
}
BEST_MODEL = f"{BEST}.safetensors"
DERIVED = {*ALONE, *LEFT_OUT, *NORM_ARGUMENTS, "global_pool"}  # it needs not be given these


def read_run_encoder(spec: str, *, random_init: bool = False, seed: int = 0) -> EncoderParts:
    """Read an encoder's description and weights, or draw these as pretraining would.

    Args:
        spec: a run folder, or the path of a `.safetensors`: of a pretrained encoder, or of a
            classifier, whose head is left out.
        random_init: draw weights by MILAN's initialisation (`vit.build_encoder`).
        seed: of that draw.

    Raises:
        MissingDataError, DataError: the files are not there, or damaged.
        ConfigError: this timm does not have the model, or it is no transformer.
    """
    url = config_url(spec)
    arguments, mean, std = read_architecture(url)
    state = (
        _drawn(read_encoder_description(url)["timm"], seed, url)
        if random_init
        else _read(weights_url(spec))
    )
    return EncoderParts(arguments, state, mean, std)


def read_architecture(url: str) -> tuple[dict[str, Any], list[float], list[float]]:
    """Read an encoder's description: what makes it without a head, and its pixels' mean and std.

    Raises:
        MissingDataError: it is not there.
        DataError: it is damaged.
        ConfigError: this timm does not have the model, or it is no transformer.
    """
    try:
        description = read_encoder_description(url)
    except MissingDataError as error:
        if said := _what_it_is(url):
            raise MissingDataError(said) from error
        raise
    described = description["timm"]
    mean, std = ([float(value) for value in description[name]] for name in ("mean", "std"))
    if not timm.is_model(described["model_name"]):
        raise ConfigError(
            f"{url} names the model {described['model_name']!r}, which this timm "
            "does not have; install the version that trained it"
        )
    try:
        return backbone_arguments(described), mean, std
    except ConfigError:
        raise
    except CANNOT_BUILD as error:
        raise DataError(f"{url} describes no encoder ({error}); export it again") from error


def _what_it_is(url: str) -> str | None:
    """Say what lies where a description is missing, and what to give instead, if that is known."""
    folder = storage.folder_of(url)
    if (said := of_a_hub(folder)) is not None:
        return said

    def holds(*names: str) -> bool:
        return all(storage.exists(storage.join(folder, name)) for name in names)

    hints = {
        (BEST_MODEL,): (
            f"{folder} is no run of pretrain; give the model that finetune or segment wrote there, "
            f"--encoder {storage.join(folder, BEST_MODEL)}"
        ),
        (MODEL, HASHES): f"{folder} is a checkpoint; give the folder of its run",
        ("open_clip_config.json",): (
            f"{folder} is a CLIP of open_clip; give --encoder open_clip:local-dir:{folder}"
        ),
        ("config.json", "model.safetensors"): (
            f"{folder} is a model for timm or transformers, as `export` writes it; give the run "
            "folder that it was exported from"
        ),
    }
    for names, said in hints.items():
        if holds(*names):
            return said
    if (run := storage.enclosing(folder, ENCODER, BEST_MODEL)) is not None:
        model = storage.join(run, BEST_MODEL)
        given = run if storage.exists(storage.join(run, ENCODER)) else model
        return f"{folder} lies in the run {run}; give --encoder {given}"
    weights = folder if folder.endswith(PICKLED) else url.removesuffix(".json") + ".safetensors"
    if holds("state.json") or not storage.exists(weights):  # a run writes its description again
        return None
    return (
        f"{weights} has no .json beside it that describes an encoder; give a run folder, which "
        f"`milan-pipeline import-checkpoint {weights} --out RUN` makes of an official checkpoint"
    )


def config_url(spec: str) -> str:
    """Return where an encoder's description lies."""
    url = spec if spec.endswith(".safetensors") else storage.join(spec, ENCODER)
    return url.removesuffix(".safetensors") + ".json"


def weights_url(spec: str) -> str:
    """Return where an encoder's weights lie; of a local run that is not done, in a checkpoint.

    Raises:
        MissingDataError: a local run has none.
    """
    if spec.endswith(".safetensors"):
        return spec
    run = storage.local_path(spec)
    return storage.join(spec, ENCODER) if run is None else str(encoder_file(run))


def _read(url: str) -> dict[str, Tensor]:
    return encoder_part(plain_tensors(url, read_checked(url), remedy="export it again"))


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


CANNOT_FETCH = (*CANNOT_BUILD, LookupError, OSError)


def read_timm_encoder(name: str, *, random_init: bool = False) -> EncoderParts:
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
        arguments = backbone_arguments({"model_name": without_tag(name)})
    except ConfigError:
        raise
    except CANNOT_BUILD as error:
        raise ConfigError(
            f"--encoder {name!r} cannot be built ({reason_of(error)}); choose another of "
            "timm's models"
        ) from error
    state = None if random_init or not is_pretrained(name) else _fetched(name)
    return EncoderParts(arguments, state, list(config.mean), list(config.std))


def is_pretrained(name: str) -> bool:
    """Tell whether a name of timm asks for weights: it has a tag."""
    return "." in name


def random_weights(spec: str) -> str | None:
    """Say so where a name of timm has no tag, which stands for random weights.

    Args:
        spec: an encoder, see `names.kind_of`.
    """
    kind, name = kind_of(spec)
    if kind != "timm" or is_pretrained(name):
        return None
    tags = [f"timm:{tag}" for tag in timm.list_pretrained(f"{name}.*")[:3]]
    trained = f"; trained are {', '.join(tags)}" if tags else ""
    return f"--encoder {spec} has no tag, so its weights are random{trained}"


def without_tag(name: str) -> str:
    """Return a name of timm without its tag."""
    return name.partition(".")[0]


def _known(name: str) -> Any:
    """Return timm's entry on a name's weights: their mean, std and where they are."""
    require_timm_name(name)
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        tags = timm.list_pretrained(without_tag(name) + ".*")
        raise ConfigError(
            f"--encoder {name!r} has a tag that timm does not know; choose "
            + (" or ".join(tags) or "it without one: timm has no weights of it")
        ) from error


def _fetched(name: str) -> dict[str, Any]:
    try:
        with asking_hub(name):
            return dict(timm.create_model(name, pretrained=True, num_classes=0).state_dict())
    except CANNOT_FETCH as error:
        raise ConfigError(
            f"the weights of --encoder {name!r} cannot be loaded ({reason_of(error)}); connect to "
            "the network once (see docs/without-network.md), or leave out its tag for random "
            "weights"
        ) from error


class TimmModel(NamedTuple):
    """A model of timm, in evaluation mode, and what its pixels in [0, 1] are normalised by.

    Its type is that of `timm.create_model`: a module with `forward_features`.
    """

    model: Any
    mean: list[float]
    std: list[float]


def load_timm_model(spec: str | os.PathLike[str]) -> TimmModel:
    """Load the encoder of a run as a model of timm without a classifier.

    Args:
        spec: a run folder, or the path of an exported `.safetensors` with its `.json` beside it.

    Raises:
        MissingDataError, DataError: the files are not there, or damaged.
        ConfigError: this timm does not have the model.
        MismatchError: the weights do not fit the architecture beside them.
    """
    origin = os.fspath(spec)
    parts = read_run_encoder(origin)
    model, _ = assemble(parts, origin=origin)
    return TimmModel(model.eval(), parts.mean, parts.std)
