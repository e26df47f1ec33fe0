"""Encoders to be trained further, whatever they come from: timm's transformers without a head."""

import dataclasses
from typing import Any

from torch import nn

from milan_pipeline.converted_towers import read_clip_encoder
from milan_pipeline.encoder_names import kind_of, require_done
from milan_pipeline.errors import ConfigError
from milan_pipeline.headless import Headless, assemble
from milan_pipeline.run_encoders import read_run_encoder
from milan_pipeline.timm_encoders import read_timm_encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A transformer of timm without a classifier.

    Attributes:
        name: what tables call it.
        model: on the CPU, in training mode, all of it trainable; `forward_features` gives tokens
            after the final norm, (B, N, E), of which `num_prefix_tokens` are no patches.
        arguments: plain JSON; `timm.create_model(**arguments)` makes the architecture again.
        mean: of each channel of the pixels in [0, 1] that it is given.
        std: likewise.
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


def _read(spec: str, random_init: bool, seed: int) -> Headless:
    kind, rest = kind_of(spec)
    if kind == "pixels":
        raise ConfigError(f"--encoder {spec!r} has no weights to train; give a run or a timm name")
    if kind == "open_clip":
        return read_clip_encoder(rest, random_init=random_init)
    if kind == "timm":
        return read_timm_encoder(rest, random_init=random_init)
    return read_run_encoder(spec, random_init=random_init, seed=seed)
