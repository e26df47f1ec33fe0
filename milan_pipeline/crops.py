"""Crop, resize and flip: the second half of the ONE pixel path that teacher and student share.

Shape suffixes: H, W height and width of the source, S size of the result, C = 3 channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from milan_pipeline.views import Box


def view_pixels(rgb_HWC: NDArray[np.uint8], box: Box, size: int) -> torch.Tensor:
    """Cut a view out of an image: crop, antialiased bicubic resize, flip; uint8 throughout.

    Normalising is left to the device: as floats the pixels would cost more than all of this.

    Args:
        rgb_HWC: the decoded image, (H, W, 3) uint8.
        box: what to cut, inside the image.
        size: height and width of the result, in pixels.

    Returns:
        The view, (3, size, size) uint8, contiguous.
    """
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    # A copy of the crop alone, because decoded images are read-only and torch wants to own memory.
    crop_CHW = torch.from_numpy(rgb_HWC[rows, columns].copy()).permute(2, 0, 1)
    # Seen channels-last, as decoded: the layout of torch's vectorised uint8 kernel.
    view_CSS: torch.Tensor = F.resize(
        crop_CHW, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    if box.flip:
        view_CSS = view_CSS.flip(-1)
    return view_CSS.contiguous()
