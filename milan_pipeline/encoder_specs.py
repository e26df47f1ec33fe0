"""What `--encoder` may name: find it, tell whether it changed, load it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import VisionTransformer

from milan_pipeline import storage
from milan_pipeline.encoders import (
    PIXELS_SIZE,
    FrozenEncoder,
    PixelEncoder,
    StudentEncoder,
    TeacherEncoder,
)
from milan_pipeline.errors import ConfigError, DataError, MismatchError, MissingDataError
from milan_pipeline.run_weights import encoder_file, encoder_part
from milan_pipeline.teacher import Teacher, describe_teacher
from milan_pipeline.teacher_spec import TeacherSpec
from milan_pipeline.vit import CANNOT_BUILD, FINAL_NORM, build_encoder

WEIGHTS_NAME = "encoder.safetensors"
TEACHER_SUFFIXES = (".json", ".safetensors", ".bin", ".pth")
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
DERIVED = {"pretrained", "num_classes", *FINAL_NORM}


def load_encoder(
    spec: str, *, random_init: bool = False, seed: int = 0, device: str = "cpu"
) -> FrozenEncoder:
    """Load the encoder that `spec` names.

    Args:
        spec: a run folder with `encoder.safetensors` and `encoder.json`, or the path of such
            weights; `open_clip:MODEL/TAG` (or `open_clip:local-dir:PATH`, `open_clip:hf-hub:REPO`)
            for a CLIP tower; `pixels` or `pixels:SIZE` for the pixels themselves, the floor that
            any encoder must beat.
        random_init: take the architecture only and draw the weights anew.
        seed: of that draw.
        device: where the encoder computes.

    Raises:
        ConfigError: the spec names nothing that can be loaded.
        MissingDataError: the run's files are not there.
        DataError: they are damaged.
        MismatchError: the weights do not fit the architecture beside them.
    """
    kind, rest = _split(spec, random_init)
    if kind == "pixels":
        return PixelEncoder(_pixels_size(rest))
    if kind == "open_clip":
        return TeacherEncoder(Teacher.load(_teacher_spec(rest), device=device), name=spec)
    return _load_student(spec, random_init, seed, device)


def require_encoder(spec: str, *, random_init: bool = False) -> None:
    """Refuse a spec that names nothing, without loading weights; raises as `load_encoder` does."""
    kind, rest = _split(spec, random_init)
    if kind == "pixels":
        _pixels_size(rest)
    elif kind == "open_clip":
        describe_teacher(_teacher_spec(rest))
    else:
        _read_config(_config_url(spec))


def fingerprint(spec: str, *, random_init: bool = False) -> str:
    """Name what stands behind `spec` without loading it: the hash of its files, if it has any.

    Raises:
        MissingDataError: the run's files, or those of a CLIP's folder, are not there.
    """
    kind, _, rest = spec.partition(":")
    if kind == "pixels":
        return spec
    digest = hashlib.sha256()
    if kind == "open_clip":
        files = _teacher_files(rest)
        for path in files:
            content = hashlib.sha256(storage.read_bytes(str(path)))
            digest.update(f"{path.name} {content.hexdigest()}\n".encode())
        return digest.hexdigest() if files else spec
    for url in [_config_url(spec)] + ([] if random_init else [_weights_url(spec)]):
        digest.update(storage.read_bytes(url))
    return digest.hexdigest()


def _pixels_size(text: str) -> int:
    if text and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"encoder 'pixels:{text}' gives no size; write pixels:64 or the like")
    return int(text or PIXELS_SIZE)


def _split(spec: str, random_init: bool) -> tuple[str, str]:
    """Return a spec's kind and what follows its colon."""
    kind, _, rest = spec.partition(":")
    if kind == "open_clip" and random_init:
        raise ConfigError(
            f"--random-init needs a student's architecture, not {spec!r}; give a run folder"
        )
    return kind, rest


def _teacher_spec(rest: str) -> TeacherSpec:
    """Return what open_clip calls a CLIP, and the tag or file of its weights; no prior is read."""
    if rest.startswith(("local-dir:", "hf-hub:")):
        return TeacherSpec(name=rest, prior="uniform")
    name, _, tag = rest.partition("/")
    return TeacherSpec(name=name, pretrained=tag or None, prior="uniform")


def _teacher_files(rest: str) -> list[Path]:
    """List the local files that a CLIP is loaded from: none where it comes from the network."""
    clip = _teacher_spec(rest)
    name, tag = clip.name, clip.pretrained
    if not name.startswith("local-dir:"):
        return [Path(tag)] if tag is not None and Path(tag).is_file() else []
    folder = Path(name.removeprefix("local-dir:"))
    files = [folder / file for file in storage.list_names(str(folder))]
    files = [path for path in files if path.suffix in TEACHER_SUFFIXES]
    if not files:
        raise MissingDataError(f"--encoder open_clip:{name} holds no CLIP; give its folder")
    return files


def _load_student(spec: str, random_init: bool, seed: int, device: str) -> StudentEncoder:
    config_url = _config_url(spec)
    timm_arguments, mean, std = _read_config(config_url)
    if random_init:
        model = _random_student(timm_arguments, seed, config_url)
    else:
        model = _trained_student(timm_arguments, _weights_url(spec), config_url)
    return StudentEncoder(model.to(device), name=spec, mean=mean, std=std)


def _config_url(spec: str) -> str:
    """Return where a student's description lies."""
    weights_url = spec if spec.endswith(".safetensors") else storage.join(spec, WEIGHTS_NAME)
    return weights_url.removesuffix(".safetensors") + ".json"


def _weights_url(spec: str) -> str:
    """Return where a student's weights lie; of a local run that is not done, in a checkpoint."""
    if spec.endswith(".safetensors"):
        return spec
    run = storage.local_path(spec)
    return storage.join(spec, WEIGHTS_NAME) if run is None else str(encoder_file(run))


def _read_config(url: str) -> tuple[dict[str, Any], list[float], list[float]]:
    """Read `encoder.json`: {"timm": arguments of create_model, "mean": [...], "std": [...]}."""
    try:
        document = json.loads(storage.read_bytes(url))
        mean, std = ([float(value) for value in document[key]] for key in ("mean", "std"))
        arguments = dict(document["timm"])
        if not (len(mean) == len(std) == 3 and isinstance(arguments["model_name"], str)):
            raise ValueError("mean and std need 3 values each, model_name must be text")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{url} describes no encoder ({error!r}); export it again") from error
    return arguments, mean, std


def _trained_student(
    arguments: dict[str, Any], weights_url: str, config_url: str
) -> VisionTransformer:
    # The file may come from a stranger: it must not make timm fetch or unpickle anything.
    harmless = {"pretrained": False, "checkpoint_path": "", "num_classes": 0}
    if not timm.is_model(arguments["model_name"]):
        raise ConfigError(
            f"{config_url} names the model {arguments['model_name']!r}, which this timm "
            "does not have; install the version that trained it"
        )
    try:
        model = timm.create_model(**(arguments | harmless))
    except CANNOT_BUILD as error:
        raise DataError(f"{config_url} describes no encoder ({error}); export it again") from error
    if not isinstance(model, VisionTransformer) or not model.has_class_token:
        raise ConfigError(f"{config_url} names no ViT with a CLS token; give the run of one")
    try:
        state = encoder_part(safetensors.torch.load(storage.read_bytes(weights_url)))
    except SafetensorError as error:
        raise DataError(f"{weights_url} is damaged ({error}); export it again") from error
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise MismatchError(f"{weights_url} does not fit {config_url}: {reason}") from error
    return model


def _random_student(arguments: dict[str, Any], seed: int, config_url: str) -> VisionTransformer:
    given = {name: value for name, value in arguments.items() if name in REBUILDABLE}
    other = sorted(arguments.keys() - given.keys() - DERIVED)
    if other:
        raise ConfigError(
            f"{config_url} has {other[0]!r}, which a random initialisation cannot reproduce; "
            "evaluate that run's trained weights only"
        )
    sizes: dict[str, Any] = {"image_size": None, "patch_size": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(**(sizes | {REBUILDABLE[name]: given[name] for name in given}))
