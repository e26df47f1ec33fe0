"""Frozen encoders behind one face: a trained student, a CLIP tower, or the bare pixels.

Shape suffixes: B batch, C = 3 channels, H, W pixels, N tokens, E width, F features.
"""

import hashlib
import json
from typing import Any, Protocol

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from timm.models import VisionTransformer

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, MismatchError
from milan_pipeline.student import build_encoder
from milan_pipeline.teacher import Teacher

POOLS = ("cls", "mean", "both")
PIXELS_SIZE = 64
WEIGHTS_NAME = "encoder.safetensors"
# The arguments of timm that `student.build_encoder` takes, and what it calls them.
REBUILDABLE = {
    "model_name": "name",
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
}


class FrozenEncoder(Protocol):
    """What evaluation needs of an encoder.

    Attributes:
        name: what tables call it.
        image_size: height and width of its input, in pixels.
        mean: of each channel, subtracted from pixels in [0, 1]; `features` does it.
        std: of each channel, dividing them after.
    """

    name: str
    image_size: int
    mean: list[float]
    std: list[float]

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views.

        Args:
            pixels_BCHW: uint8, `image_size` pixels square.
            pool: "cls" token, "mean" of the patch tokens, or "both" side by side.

        Returns:
            (B, F) float32, on the CPU.
        """


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
    kind, _, rest = spec.partition(":")
    if kind == "pixels":
        return PixelEncoder(_pixels_size(rest))
    if kind == "open_clip":
        if random_init:
            raise ConfigError(f"--random-init needs a student's architecture, not {spec!r}")
        return TeacherEncoder(_load_teacher(rest, device), name=spec)
    return _load_student(spec, random_init, seed, device)


def fingerprint(spec: str) -> str:
    """Name what stands behind `spec` without loading it: the hash of a student's files.

    Raises:
        MissingDataError: the run's files are not there.
    """
    if spec.partition(":")[0] in ("pixels", "open_clip"):
        return spec
    contents = [storage.read_bytes(url) for url in _student_urls(spec)]
    return hashlib.sha256(b"".join(contents)).hexdigest()


class PixelEncoder:
    """The pixels of a small view as its features."""

    def __init__(self, image_size: int = PIXELS_SIZE) -> None:
        self.name = f"pixels:{image_size}"
        self.image_size = image_size
        self.mean, self.std = [0.0] * 3, [1.0] * 3

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Return the pixels in [0, 1], whatever the pool: (B, 3 * size * size) float32."""
        _require_pool(pool)
        return pixels_BCHW.flatten(1).float().div_(255)


class TeacherEncoder:
    """A CLIP image tower; its features are projected, as targets are."""

    def __init__(self, teacher: Teacher, *, name: str) -> None:
        self.name = name
        self.image_size = teacher.image_size
        self.mean, self.std = teacher.mean, teacher.std
        self._teacher = teacher

    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views; see `FrozenEncoder.features`."""
        targets_BND, _ = self._teacher(pixels_BCHW)
        return _pooled(targets_BND, 1, pool).cpu()


class StudentEncoder:
    """A timm ViT without its head."""

    def __init__(
        self, model: VisionTransformer, *, name: str, mean: list[float], std: list[float]
    ) -> None:
        height, width = model.patch_embed.img_size
        if height != width:
            raise ConfigError(
                f"encoder {name!r} takes {height}x{width} pixels; views are square, give one that "
                "takes those"
            )
        self.name = name
        self.image_size = int(height)
        self.mean, self.std = mean, std
        self._model = model.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def features(self, pixels_BCHW: torch.Tensor, *, pool: str = "cls") -> torch.Tensor:
        """Encode views; see `FrozenEncoder.features`."""
        weight = self._model.patch_embed.proj.weight
        mean, std = (
            torch.tensor(values, device=weight.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        pixels_BCHW = pixels_BCHW.to(weight.device).float().div_(255).sub_(mean).div_(std)
        tokens_BNE = self._model.forward_features(pixels_BCHW)
        return _pooled(tokens_BNE, self._model.num_prefix_tokens, pool).float().cpu()


def _pooled(tokens_BNE: torch.Tensor, prefix: int, pool: str) -> torch.Tensor:
    """Pool tokens of which the first is CLS and the first `prefix` are no patches."""
    _require_pool(pool)
    cls_BE, mean_BE = tokens_BNE[:, 0], tokens_BNE[:, prefix:].mean(dim=1)
    if pool == "both":
        return torch.cat([cls_BE, mean_BE], dim=1)
    return cls_BE if pool == "cls" else mean_BE


def _require_pool(pool: str) -> None:
    if pool not in POOLS:
        raise ConfigError(f"pool {pool!r} is unknown; choose one of {', '.join(POOLS)}")


def _pixels_size(text: str) -> int:
    if text and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"encoder 'pixels:{text}' gives no size; write pixels:64 or the like")
    return int(text or PIXELS_SIZE)


def _load_teacher(rest: str, device: str) -> Teacher:
    if rest.startswith(("local-dir:", "hf-hub:")):
        name, tag = rest, None
    else:
        name, _, tag = rest.partition("/")
    return Teacher.load(name, tag or None, device=device)


def _load_student(spec: str, random_init: bool, seed: int, device: str) -> StudentEncoder:
    config_url, weights_url = _student_urls(spec)
    timm_arguments, mean, std = _read_config(config_url)
    if random_init:
        model = _random_student(timm_arguments, seed, config_url)
    else:
        model = _trained_student(timm_arguments, weights_url, config_url)
    return StudentEncoder(model.to(device), name=spec, mean=mean, std=std)


def _student_urls(spec: str) -> tuple[str, str]:
    """Return where a student's description and weights lie."""
    weights_url = spec if spec.endswith(".safetensors") else storage.join(spec, WEIGHTS_NAME)
    return weights_url.removesuffix(".safetensors") + ".json", weights_url


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
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{config_url} describes no encoder ({error}); export it again") from error
    if not isinstance(model, VisionTransformer) or not model.has_class_token:
        raise ConfigError(f"{config_url} names no ViT with a CLS token; give the run of one")
    try:
        state = safetensors.torch.load(storage.read_bytes(weights_url))
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
    other = sorted(arguments.keys() - given.keys() - {"pretrained", "num_classes"})
    if other:
        raise ConfigError(
            f"{config_url} has {other[0]!r}, which a random initialisation cannot reproduce; "
            "evaluate that run's trained weights only"
        )
    sizes: dict[str, Any] = {"image_size": None, "patch_size": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(**(sizes | {REBUILDABLE[name]: given[name] for name in given}))
