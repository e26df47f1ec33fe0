"""Makes the evaluation view of `finetune` and `probe`: resized, then centre-cropped.

MILAN's and MAE's fine-tuning and linear probing, DINO's k-NN and DINOv2's linear evaluation resize
the shorter side to 256 by Pillow's bicubic and cut the central 224 pixels; where a margin is odd,
half of it is rounded to the even number.
"""

import math
from collections.abc import Callable

from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor

INTERPOLATION = "bicubic"
CROP_PCT, WHOLE_FROM = 0.875, 224

EvaluationView = Callable[[Image.Image], Tensor]


def default_crop_pct(image_size: int) -> float:
    """Return 224/256 up to 224 pixels, else 1: the official code's."""
    return CROP_PCT if image_size <= WHOLE_FROM else 1.0


def resized_side(image_size: int, crop_pct: float) -> int:
    """Return how long the shorter side is made before the middle is cut, in pixels, as timm does.

    Args:
        image_size: height and width of the view, in pixels.
        crop_pct: `image_size` as a share of it.
    """
    return math.floor(image_size / crop_pct)


def evaluation_view(image_size: int, crop_pct: float) -> EvaluationView:
    """Return what turns an RGB image into uint8 pixels (C, S, S), by timm's own transforms.

    Args:
        image_size: S, height and width of the view, in pixels.
        crop_pct: S as a share of the shorter side that the image is first resized to.
    """
    view: EvaluationView = create_transform(
        image_size, interpolation=INTERPOLATION, crop_pct=crop_pct, use_prefetcher=True
    )
    return view
