"""Turns a Pillow image into what an encoder takes: the view that is scored, normalised.

Legend: S height and width of the view, in pixels.
"""

import os
from collections.abc import Callable
from typing import NotRequired, TypedDict

from PIL import Image
from torch import Tensor

from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.encoders.readers import config_url, read_architecture
from milan_pipeline.errors import BadImageError, ConfigError
from milan_pipeline.evaluate.evaluation_view import default_crop_pct, evaluation_view
from milan_pipeline.images.crops import Pixels
from milan_pipeline.images.decode import rgb_of_16_bits
from milan_pipeline.models.weight_files import read_document

ImageTransform = Callable[[Image.Image], Tensor]


class _Cropped(TypedDict):
    """What the description of a classifier has beside an encoder's."""

    crop_pct: NotRequired[float]


def image_transform(
    encoder: str | os.PathLike[str] | FrozenEncoder,
    *,
    crop_pct: float | None = None,
    normalise: bool = True,
) -> ImageTransform:
    """Return what turns a Pillow image of any mode into an encoder's input.

    The shorter side is resized by Pillow's bicubic, and the middle is cut, as `probe` and
    `finetune` do before they score.

    What it returns raises ConfigError if it is not given an image of Pillow, and BadImageError if
    the image has no pixels.

    Args:
        encoder: a run folder, the path of a `.safetensors` of an encoder or a classifier with its
            `.json` beside it, or what `load_encoder` returns.
        crop_pct: S as a share of the shorter side that the image is first resized to; None is what
            a classifier was scored by, else 0.875 up to 224 pixels and 1 above.
        normalise: return (3, S, S) float32 as a model of timm takes it; else uint8, as
            `load_encoder(…).features` takes it.

    Raises:
        MissingDataError: there is no such encoder.
        DataError: its description is damaged.
        ConfigError: this timm does not have the model.
    """
    if isinstance(encoder, str | os.PathLike):
        url = config_url(os.fspath(encoder))
        arguments, mean, std = read_architecture(url)
        size = arguments["img_size"]
        side = int(size if isinstance(size, int) else size[0])
        if crop_pct is None:
            stated = read_document(url, _Cropped, what="encoder", remedy="export it again")
            crop_pct = stated.get("crop_pct")
    else:
        side, mean, std = encoder.image_size, encoder.mean, encoder.std
    view = evaluation_view(side, default_crop_pct(side) if crop_pct is None else crop_pct)
    pixels = Pixels(mean, std, scaling="pixels")

    def transform(image: Image.Image) -> Tensor:
        view_CSS = view(_as_rgb(image))
        return pixels(view_CSS) if normalise else view_CSS

    return transform


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as `decode_rgb` would: of 16 bits the high byte, where Pillow takes white.

    Raises:
        ConfigError: it is no image of Pillow.
        BadImageError: it has no pixel.
    """
    if not isinstance(image, Image.Image):
        raise ConfigError(
            f"the transform takes an image of Pillow and not {type(image).__name__}; give "
            "PIL.Image.open(FILE), or PIL.Image.fromarray of an array (H, W, 3) in uint8"
        )
    if 0 in image.size:
        raise BadImageError(f"an image of {image.width} x {image.height} pixels shows nothing")
    if image.mode.startswith("I"):
        return Image.fromarray(rgb_of_16_bits(image))
    return image.convert("RGB")
