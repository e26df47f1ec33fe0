"""From images to the examples of MAE's pretraining: the targets are the masked patches' pixels.

Legend: B batch, K kept and M masked patches, T supervised tokens, P = 3 * p * p pixels of a patch,
S side of the view, C channels.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from milan_pipeline.crops import cut_patches, view_pixels
from milan_pipeline.examples import IMAGE_MEMBER, Batch
from milan_pipeline.images import decode_rgb
from milan_pipeline.masking import draw_mask
from milan_pipeline.views import ViewPolicy


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToPixelExamples:
    """Turn images into tensors: a view, its kept patches and, as targets, its masked ones.

    A stage of a pipeline. (MAE, arXiv 2111.06377, section 3.) In a `Batch`, the codes are the
    pixels of the masked patches as they are, uint8; there is no scale.

    Attributes:
        image_size: height and width of the view, in pixels.
        patch_size: of the student.
        kept: K, visible patches.
        seed: of views and masks.
        masking: how the kept patches are drawn; see `masking.draw_mask`. There is no prior.
        min_scale: smallest share of an image's area in a view.
        views: how many views an image has; None draws a new one each epoch.
    """

    image_size: int
    patch_size: int
    kept: int
    seed: int
    masking: str = "random"
    min_scale: float = 0.2
    views: int | None = None

    def __call__(self, samples: Iterable[dict[str, Any]]) -> Iterator[Batch]:
        """Decode, crop, draw masks: examples without a batch dimension, in the samples' order.

        Raises:
            BadImageError: an image cannot be decoded.
        """
        policy = ViewPolicy(seed=self.seed, scale=(self.min_scale, 1.0))
        side = self.image_size // self.patch_size
        no_prior_L = np.ones(side * side, dtype=np.float32)
        for sample in samples:
            key, epoch = sample["__key__"], sample["epoch"]
            rgb_HWC = decode_rgb(sample[IMAGE_MEMBER])
            height, width = rgb_HWC.shape[:2]
            view = epoch if self.views is None else epoch % self.views
            box = policy.box(height, width, key, view)
            view_CSS = view_pixels(rgb_HWC, box, self.image_size)
            kept_K, masked_M = draw_mask(
                self.masking,
                no_prior_L,
                self.kept,
                grid=(side, side),
                seed=self.seed,
                epoch=epoch,
                key=key,
            )
            yield Batch(
                patches_BKP=cut_patches(view_CSS, self.patch_size, kept_K),
                kept_BK=torch.from_numpy(kept_K),
                masked_BM=torch.from_numpy(masked_M),
                codes_BTC=cut_patches(view_CSS, self.patch_size, masked_M),
                scale_BT=torch.empty(0),
                keys=[key],
            )


class PixelTargets:
    """Decode the pixels of patches to targets: normalised as what the student sees.

    Args:
        mean: of each channel, in [0, 1].
        std: likewise.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._mean_C1, self._std_C1 = (torch.tensor(v).view(-1, 1) for v in (mean, std))

    def decode(self, codes_BTP: torch.Tensor, scale_BT: torch.Tensor | None) -> torch.Tensor:
        """Return float32 (B, T, P), channel-major as the codes, on their device."""
        del scale_BT
        mean_C1, std_C1 = (each.to(codes_BTP.device) for each in (self._mean_C1, self._std_C1))
        per_channel = codes_BTP.float().div_(255).view(*codes_BTP.shape[:-1], len(mean_C1), -1)
        targets_BTP: torch.Tensor = per_channel.sub_(mean_C1).div_(std_C1).flatten(-2)
        return targets_BTP
