"""Gives the encoder that `--encoder` names: frozen, or as a backbone to train further."""

import dataclasses
import hashlib
import os
from pathlib import Path

import timm

from milan_pipeline import storage
from milan_pipeline.encoders.backbone import Backbone, EncoderParts, assemble
from milan_pipeline.encoders.clip import read_clip_encoder
from milan_pipeline.encoders.frozen import (
    PIXELS_SIZE,
    FrozenEncoder,
    PixelEncoder,
    StudentEncoder,
    TeacherEncoder,
)
from milan_pipeline.encoders.names import as_encoder, clip_spec, kind_of, require_done
from milan_pipeline.encoders.readers import (
    config_url,
    is_pretrained,
    read_architecture,
    read_run_encoder,
    read_timm_encoder,
    weights_url,
)
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.storage.checksums import read_checked
from milan_pipeline.teacher.description import describe_teacher
from milan_pipeline.teacher.teacher import Teacher

TEACHER_SUFFIXES = (".json", ".safetensors", ".bin", ".pth")


def load_encoder(
    spec: str | os.PathLike[str],
    *,
    random_init: bool = False,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
) -> FrozenEncoder:
    """Load the encoder that `spec` names.

    Args:
        spec: a run folder with `encoder.safetensors` and `encoder.json`, or the path of such
            weights; `timm:NAME` or NAME for timm's model with random weights, NAME.TAG for
            pretrained ones; `open_clip:MODEL/TAG` (or `open_clip:local-dir:PATH`,
            `open_clip:hf-hub:REPO`) for a CLIP tower with its projection; `pixels` or `pixels:SIZE`
            for the pixels themselves, the floor that any encoder must beat.
        random_init: take the architecture only and draw the weights anew.
        seed: of that draw.
        device: where the encoder computes.
        precision: of its arithmetic, "fp32" or "bf16".

    Raises:
        ConfigError: the spec names nothing that can be loaded.
        MissingDataError: the run's files are not there.
        DataError: they are damaged.
        MismatchError: the weights do not fit the architecture beside them.
    """
    spec = os.fspath(spec)
    kind, rest = _split(spec, random_init)
    if kind == "pixels":
        return PixelEncoder(_pixels_size(rest))
    if kind == "open_clip":
        with as_encoder(rest):
            clip = dataclasses.replace(clip_spec(rest), precision=precision)
            return TeacherEncoder(Teacher.load(clip, device=device), name=spec)
    if kind == "timm":
        parts = read_timm_encoder(rest, random_init=random_init)
    else:
        parts = read_run_encoder(spec, random_init=random_init, seed=seed)
    model, _ = assemble(parts, origin=spec, seed=seed)
    bf16 = precision == "bf16"
    return StudentEncoder(model.to(device), name=spec, mean=parts.mean, std=parts.std, bf16=bf16)


def image_size_of(spec: str, *, random_init: bool = False) -> int:
    """Return the height of an encoder's input, in pixels, without loading weights.

    Raises:
        As `load_encoder` does, where the spec names nothing.
    """
    kind, rest = _split(spec, random_init)
    if kind == "pixels":
        return _pixels_size(rest)
    if kind == "open_clip":
        with as_encoder(rest):
            return describe_teacher(clip_spec(rest)).image_size
    if kind == "timm":
        arguments = read_timm_encoder(rest, random_init=True).arguments
    else:
        arguments, _, _ = read_architecture(config_url(spec))
    size = arguments["img_size"]
    return int(size if isinstance(size, int) else size[0])


def fingerprint(spec: str, *, random_init: bool = False) -> str:
    """Return what identifies the encoder without loading it: the hash of its files, if it has any.

    timm's pretrained weights are identified by their name and by timm's version, as another version
    may have other weights under that name.

    Raises:
        MissingDataError: the run's files, or those of a CLIP's folder, are not there.
    """
    kind, rest = kind_of(spec)
    if kind == "pixels":
        return spec
    if kind == "timm":
        return f"{spec} timm {timm.__version__}" if is_pretrained(rest) else spec
    digest = hashlib.sha256()
    if kind == "open_clip":
        files = _teacher_files(rest)
        for path in files:
            content = hashlib.sha256(storage.read_bytes(str(path)))
            digest.update(f"{path.name} {content.hexdigest()}\n".encode())
        return digest.hexdigest() if files else spec
    for url in [config_url(spec)] + ([] if random_init else [weights_url(spec)]):
        digest.update(read_checked(url))
    return digest.hexdigest()


def _pixels_size(text: str) -> int:
    if text and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"encoder 'pixels:{text}' gives no size; write pixels:64 or the like")
    return int(text or PIXELS_SIZE)


def _split(spec: str, random_init: bool) -> tuple[str, str]:
    """Return a spec's kind and what it names within it."""
    kind, rest = kind_of(spec)
    if kind == "open_clip" and random_init:
        raise ConfigError(
            f"--random-init needs a student's architecture, not {spec!r}; give a run folder"
        )
    return kind, rest


def _teacher_files(rest: str) -> list[Path]:
    """List the local files that a CLIP is loaded from: none where it comes from the network."""
    clip = clip_spec(rest)
    name, tag = clip.name, clip.pretrained
    if not name.startswith("local-dir:"):
        return [Path(tag)] if tag is not None and Path(tag).is_file() else []
    folder = Path(name.removeprefix("local-dir:"))
    files = [folder / file for file in storage.list_names(str(folder))]
    files = [path for path in files if path.suffix in TEACHER_SUFFIXES]
    if not files:
        raise MissingDataError(f"--encoder open_clip:{name} holds no CLIP; give its folder")
    return files


def load_backbone(
    spec: str,
    *,
    image_size: int | None = None,
    drop_path: float = 0.0,
    random_init: bool = False,
    seed: int = 0,
    allow_unfinished: bool = False,
) -> Backbone:
    """Load the encoder that `spec` names, to be trained.

    Args:
        spec: a run folder with `encoder.safetensors` and `encoder.json`, or the path of such
            weights (those of a classifier, too: its head is left out); `timm:NAME` or NAME for
            timm's model with random weights, NAME.TAG for pretrained ones; `open_clip:MODEL/TAG`
            (or `open_clip:local-dir:PATH`, `open_clip:hf-hub:REPO`) for a CLIP tower without its
            projection.
        image_size: pixels of a side; positions are resampled as the official code does (see
            `positions`). None is the encoder's own.
        drop_path: rate of stochastic depth.
        random_init: take the architecture only and draw the weights: a run's as pretraining does,
            others as timm does.
        seed: of that draw.
        allow_unfinished: take a run that is not done.

    Raises:
        ConfigError: the spec names nothing that can be trained, or not at that size.
        MissingDataError: the run's files are not there.
        DataError: they are damaged.
        MismatchError: the weights do not fit their description, or the run is not done.
    """
    require_done(spec, allow_unfinished=allow_unfinished)
    parts = _read(spec, random_init, seed)
    model, arguments = assemble(
        parts, origin=spec, image_size=image_size, drop_path=drop_path, seed=seed
    )
    return Backbone(name=spec, model=model, arguments=arguments, mean=parts.mean, std=parts.std)


def _read(spec: str, random_init: bool, seed: int) -> EncoderParts:
    kind, rest = kind_of(spec)
    if kind == "pixels":
        raise ConfigError(f"--encoder {spec!r} has no weights to train; give a run or a timm name")
    if kind == "open_clip":
        return read_clip_encoder(rest, random_init=random_init)
    if kind == "timm":
        return read_timm_encoder(rest, random_init=random_init)
    return read_run_encoder(spec, random_init=random_init, seed=seed)
