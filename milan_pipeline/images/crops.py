"""Crop, resize, flip, colours: second half of the ONE pixel path of teacher and student.

Shape suffixes: H, W height and width of the source, S size of the result, C = 3 channels, K kept
patches, P = 3 * p * p pixels of a patch.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from milan_pipeline.core.device_copies import stacked
from milan_pipeline.images.colour_changes import changed_colours
from milan_pipeline.images.views import Box, Interpolation

Scaling = Literal["statistics", "float32 statistics", "pixels"]


def view_pixels(
    rgb_HWC: NDArray[np.uint8],
    box: Box,
    size: int,
    *,
    interpolation: Interpolation = "bicubic",
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cut a view out of an image: crop, antialiased resize, flip, any colours; uint8 throughout.

    Normalising is left to the device: as floats the pixels would cost more than all of this.

    Args:
        rgb_HWC: the decoded image, (H, W, 3) uint8.
        box: what to cut, inside the image.
        size: height and width of the result, in pixels.
        interpolation: of the resize; another than bicubic is for teachers that were trained so.
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
    view_CSS = F.interpolate(crop_CHW[None], (size, size), mode=interpolation, antialias=True)[0]
    # Flipped and laid out by numpy: torch would wake its threads for so little, and their waiting
    # for one another costs as much as the whole view again (measured, with two).
    flipped_CSS = view_CSS.numpy()[:, :, :: -1 if box.flip else 1]
    if box.colours is not None:
        flipped_CSS = changed_colours(flipped_CSS, box.colours)
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
    """Normalise uint8 pixels to float32: (pixels / 255 - mean) / std, for each channel.

    Args:
        mean: of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
        device: where the pixels are moved to; None leaves them where they are.
        scaling: what carries the factor 255, on which the last bit of a result depends: the
            "statistics", multiplied in float64, as in timm's prefetching loader; the "float32
            statistics", multiplied in float32; or the "pixels", divided by 255 first, as in
            torchvision.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | None = None,
        *,
        scaling: Scaling = "statistics",
    ) -> None:
        self._device = device
        self._divisor = 255 if scaling == "pixels" else 1
        wide = torch.float64 if scaling == "statistics" else torch.float32
        factor = 1 if scaling == "pixels" else 255
        self._mean_C, self._std_C = (
            (torch.tensor(values, dtype=wide) * factor).float().to(device) for values in (mean, std)
        )

    def __call__(self, images_CHW: Tensor) -> Tensor:
        """Normalise uint8 images (..., C, H, W)."""
        return self._normalised(images_CHW, (-1, 1, 1))

    def batch(self, images_CHW: Sequence[Tensor]) -> Tensor:
        """Normalise uint8 images of one size on the host, (B, C, H, W); no GPU is waited for."""
        return self(stacked(images_CHW, self._device or images_CHW[0].device))

    def patches(self, patches_P: Tensor) -> Tensor:
        """Normalise uint8 patches (..., P), which are laid out as (channel, row, column)."""
        per_channel_Cp = patches_P.reshape(*patches_P.shape[:-1], len(self._mean_C), -1)
        return self._normalised(per_channel_Cp, (-1, 1)).flatten(-2)

    def _normalised(self, pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
        device = self._device or pixels.device
        normalised = pixels.to(device, non_blocking=True).float()
        if self._divisor != 1:
            normalised.div_(self._divisor)
        if self._mean_C.device != device:  # once: each copy would have a GPU wait
            self._mean_C, self._std_C = self._mean_C.to(device), self._std_C.to(device)
        mean, std = self._mean_C.view(shape), self._std_C.view(shape)
        return normalised.sub_(mean).div_(std)
