"""Crop, resize and flip: the second half of the ONE pixel path that teacher and student share.

Shape suffixes: H, W height and width of the source, S size of the result, C = 3 channels, K kept
patches, P = 3 * p * p pixels of a patch.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from milan_pipeline.images.views import Box


def view_pixels(
    rgb_HWC: NDArray[np.uint8], box: Box, size: int, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Cut a view out of an image: crop, antialiased bicubic resize, flip; uint8 throughout.

    Normalising is left to the device: as floats the pixels would cost more than all of this.

    Args:
        rgb_HWC: the decoded image, (H, W, 3) uint8.
        box: what to cut, inside the image.
        size: height and width of the result, in pixels.
        out: where to put the view, such as a row of a batch; None makes a tensor.

    Returns:
        The view, (3, size, size) uint8, contiguous.
    """
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    # A copy of the crop alone, because decoded images are read-only and torch wants to own memory.
    crop_CHW = torch.from_numpy(rgb_HWC[rows, columns].copy()).permute(2, 0, 1)
    # Seen channels-last, as decoded: the layout of torch's vectorised uint8 kernel, which is also
    # what torchvision's `resize` calls, but takes 7% longer to (measured).
    view_CSS = F.interpolate(crop_CHW[None], (size, size), mode="bicubic", antialias=True)[0]
    # Flipped and laid out by numpy: torch would wake its threads for so little, and their waiting
    # for one another costs as much as the whole view again (measured, with two).
    flipped_CSS = view_CSS.numpy()[:, :, :: -1 if box.flip else 1]
    if out is None:
        return torch.from_numpy(np.ascontiguousarray(flipped_CSS))
    np.copyto(out.numpy(), flipped_CSS)
    return out


def cut_patches(view_CSS: torch.Tensor, patch_size: int, kept_K: NDArray[np.int64]) -> torch.Tensor:
    """Cut some patches out of a view: `patchify(view)[kept]` without touching the others.

    Args:
        view_CSS: (3, S, S) uint8, S a multiple of `patch_size`.
        patch_size: p, pixels of a patch's side.
        kept_K: indices of the patches, row-major.

    Returns:
        (K, 3 * p * p) uint8; a patch is laid out as (channel, row, column).
    """
    channels, size, _ = view_CSS.shape
    side = size // patch_size
    tiled = view_CSS.numpy().reshape(channels, side, patch_size, side, patch_size)
    patches_KCpp = tiled.transpose(1, 3, 0, 2, 4)[kept_K // side, kept_K % side]
    return torch.from_numpy(patches_KCpp.reshape(len(kept_K), channels * patch_size**2))


class Pixels:
    """Normalise uint8 images on the device, as timm's prefetching loader does."""

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
    ) -> None:
        self._device = device
        # Multiplied before they become float32, to the last bit as timm has them.
        self._mean_1C11, self._std_1C11 = (
            torch.tensor([value * 255 for value in values], device=device).view(1, -1, 1, 1)
            for values in (mean, std)
        )

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Return float32 (B, C, H, W) on the device."""
        images_BCHW = images_BCHW.to(self._device, non_blocking=True)
        return images_BCHW.float().sub_(self._mean_1C11).div_(self._std_1C11)
