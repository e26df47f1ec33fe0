"""Random changes of colour, as mmsegmentation's PhotoMetricDistortion makes them.

There are four changes, each made with a probability of one half: brightness, then saturation, then
hue; contrast comes either right after brightness or last. Values are clipped after each change.
(mmsegmentation also rounds them to OpenCV's 8-bit hues and saturations; here they are rounded at
the end only.)

Legend: C channels (RGB), H height, W width.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

BRIGHTNESS = 32 / 255  # added, at most
LEAST_FACTOR, MOST_FACTOR = 0.5, 1.5  # of contrast and of saturation
HUE = 18 / 180  # of the circle, at most


def distorted(rgb_CHW: Tensor, draws: np.random.Generator) -> Tensor:
    """Change the colours of an image.

    Args:
        rgb_CHW: uint8 pixels.
        draws: the random generator.

    Returns:
        uint8 pixels.
    """
    # Everything is drawn, used or not, so that one choice does not change the next draws.
    brightens, contrasts, saturates, turns, contrast_is_last = draws.random(5) < 0.5
    shift, turn = (float(draws.uniform(-most, most)) for most in (BRIGHTNESS, HUE))
    contrast, saturation = (float(x) for x in draws.uniform(LEAST_FACTOR, MOST_FACTOR, 2))
    view_CHW = rgb_CHW / 255
    if brightens:
        view_CHW = (view_CHW + shift).clamp(0, 1)
    if contrasts and not contrast_is_last:
        view_CHW = (view_CHW * contrast).clamp(0, 1)
    if saturates:
        view_CHW = _saturated(view_CHW, saturation)
    if turns:
        view_CHW = functional.adjust_hue(view_CHW, turn)
    if contrasts and contrast_is_last:
        view_CHW = (view_CHW * contrast).clamp(0, 1)
    return (view_CHW * 255).round().to(torch.uint8)


def _saturated(view_CHW: Tensor, factor: float) -> Tensor:
    """Multiply HSV's saturation, up to 1; hue and value stay.

    Saturation is (largest - smallest) / largest channel: the distances from the largest channel
    grow with it.
    """
    value_HW = view_CHW.amax(0)
    range_HW = value_HW - view_CHW.amin(0)
    most_HW = value_HW / range_HW.clamp(min=1e-6)  # then the smallest channel becomes 0
    return value_HW - (value_HW - view_CHW) * most_HW.clamp(max=factor)
