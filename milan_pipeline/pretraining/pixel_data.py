"""The data of a pretraining run on pixels: images, and the examples made of them (MAE).

The targets are the pixels of the masked patches.

Legend: B batch, K kept and M masked patches, T supervised tokens, P = 3 * p * p pixels of a patch,
S side of the view, C channels.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from milan_pipeline.data.image_table import ImageTable
from milan_pipeline.data.order import OrderChoice, OrderConfig
from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.images.crops import Pixels, cut_patches, view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.models.build import StudentSpec
from milan_pipeline.models.student import Student
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.pretraining.feature_data import PUBLISHED_BATCH
from milan_pipeline.pretraining.masking import draw_mask, kept_count
from milan_pipeline.shards.columns import read_image_columns
from milan_pipeline.shards.random_access import IMAGE_MEMBER

MIN_SCALE = 0.2


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
            rgb_HWC = decode_rgb(sample[IMAGE_MEMBER], key)
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
                codes=[cut_patches(view_CSS, self.patch_size, masked_M)],
                scales=[torch.empty(0)],
                keys=[key],
            )


class PixelTargets:
    """Decode the pixels of patches to targets, normalised as the student's input is.

    Args:
        mean: of each channel, in [0, 1].
        std: of each channel, in [0, 1].
    """

    in_grid_order = False
    """Pixels are those of masked patches alone."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._pixels = Pixels(mean, std, scaling="pixels")

    def decode(self, codes_BTP: torch.Tensor, scale_BT: torch.Tensor | None) -> torch.Tensor:
        """Return float32 (B, T, P), channel-major as the codes, on their device."""
        del scale_BT
        return self._pixels.patches(codes_BTP)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelData:
    """Images and their order; has the interface of `feature_data.RunData`.

    Attributes:
        samples: the images.
        order: of the images.
        manifest_sha256: of the images.
        views: how many views an image has; None draws a new one each epoch.
        min_scale: smallest share of an image's area in a view.
        missing: always 0.
        licence: there is no teacher that could have one.
    """

    samples: ImageTable
    order: OrderConfig
    manifest_sha256: str
    views: int | None
    min_scale: float
    missing: int = 0
    licence: str | None = None

    @property
    def shuffled_bytes(self) -> int:
        """About how many bytes of shards are shuffled together."""
        together = self.order.lanes * self.order.block
        share = min(1, together / int(self.samples.counts(0).sum()))
        return int(share * int(self.samples.shards.bytes_n.sum()))

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run's record says of its inputs."""
        return {"target": "pixels", "images": self.manifest_sha256}

    def target_shape(self, spec: StudentSpec) -> tuple[tuple[int, int], int]:
        """Return the grid and the width of the targets of a student: its own patches."""
        image_size, patch_size = spec.sizes()
        side = image_size // patch_size
        return (side, side), 3 * patch_size**2

    def targets(self) -> dict[str, PixelTargets]:
        """Return what decodes the targets, under no name."""
        return {"": PixelTargets(IMAGENET_MEAN, IMAGENET_STD)}

    def to_examples(self, student: Student, *, mask_ratio: float, masking: str) -> ToPixelExamples:
        """Say how a student's examples are made.

        Raises:
            ConfigError: the ratio keeps or masks nothing.
        """
        embed = student.encoder.patch_embed
        rows, columns = embed.grid_size
        return ToPixelExamples(
            image_size=int(rows * embed.patch_size[0]),
            patch_size=int(embed.patch_size[0]),
            kept=kept_count(rows * columns, mask_ratio),
            seed=self.order.seed,
            masking=masking,
            min_scale=self.min_scale,
            views=self.views,
        )


def open_pixel_data(
    images: str,
    *,
    views: int | None,
    min_scale: float | None,
    order: OrderChoice,
) -> PixelData:
    """Open the images and settle their order.

    Args:
        images: folder of image shards.
        views: of an image; None draws a new one each epoch.
        min_scale: smallest share of an image's area in a view; None is the published 0.2.
        order: what the options say of the order; its seed is also that of views and masks.

    Raises:
        ConfigError: there are fewer images than a batch has.
        DataError, MissingDataError: the first or last index is damaged or missing.
    """
    samples = ImageTable(read_image_columns(images))
    samples.require_indices()
    return PixelData(
        samples=samples,
        order=order.settled(int(samples.counts(0).sum()), PUBLISHED_BATCH),
        manifest_sha256=samples.shards.sha256,
        views=views,
        min_scale=MIN_SCALE if min_scale is None else min_scale,
    )
