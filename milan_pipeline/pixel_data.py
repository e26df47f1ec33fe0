"""What a run learns from where the targets are the pixels themselves: images alone."""

import dataclasses
from typing import Any

from milan_pipeline.errors import ConfigError
from milan_pipeline.image_table import ImageTable, open_images
from milan_pipeline.manifest import load_manifest
from milan_pipeline.masking import kept_count
from milan_pipeline.order import OrderConfig, StepClock, default_batch, default_lanes
from milan_pipeline.pixel_examples import PixelTargets, ToPixelExamples
from milan_pipeline.pixel_statistics import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.pretraining import PUBLISHED_BATCH, StudentSpec
from milan_pipeline.stream import step_clock
from milan_pipeline.student import Student

MIN_SCALE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelData:
    """Images and the order they come in; has what `pretraining.RunData` has.

    Attributes:
        samples: the images.
        order: how they are dealt.
        clock: steps of an epoch.
        manifest_sha256: of the images.
        views: how many views an image has; None draws a new one each epoch.
        min_scale: smallest share of an image's area in a view.
        missing: nothing can be missing.
    """

    samples: ImageTable
    order: OrderConfig
    clock: StepClock
    manifest_sha256: str
    views: int | None
    min_scale: float
    missing: int = 0

    @property
    def shuffled_bytes(self) -> int:
        """About how many bytes of shards all lanes' blocks span, at most."""
        together = self.order.lanes * self.order.block
        share = min(1, together / int(self.samples.counts(0).sum()))
        return int(share * sum(int(rows["length"].sum()) for rows in self.samples.rows))

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run's record says of its inputs."""
        return {"target": "pixels", "images": self.manifest_sha256}

    def target_shape(self, spec: StudentSpec) -> tuple[tuple[int, int], int]:
        """Return the grid and the width of the targets of a student: its own patches."""
        image_size, patch_size = spec.sizes()
        side = image_size // patch_size
        return (side, side), 3 * patch_size**2

    def targets(self) -> PixelTargets:
        """Return what decodes the targets."""
        return PixelTargets(IMAGENET_MEAN, IMAGENET_STD)

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
    batch: int | None,
    lanes: int | None,
    block: int,
    seed: int,
) -> PixelData:
    """Open the images and settle their order; None leaves a choice to the data.

    Args:
        images: folder of image shards.
        views: of an image; None draws a new one each epoch.
        min_scale: smallest share of an image's area in a view; None is the published 0.2.
        batch: images in a global batch.
        lanes: of the order.
        block: images of a lane that are shuffled together.
        seed: of order, views and masks.

    Raises:
        ConfigError: there are fewer images than a batch has.
    """
    manifest = load_manifest(images, kind="images")
    samples = open_images(manifest)
    count = int(samples.counts(0).sum())
    batch = batch or default_batch(count, PUBLISHED_BATCH)
    if batch > count:
        raise ConfigError(
            f"--batch-size {batch} is more than the {count} images; give at most {count}"
        )
    lanes = lanes or default_lanes(batch)
    order = OrderConfig(seed=seed, batch=batch, lanes=lanes, block=block)
    return PixelData(
        samples=samples,
        order=order,
        clock=step_clock(samples, order),
        manifest_sha256=manifest.sha256,
        views=views,
        min_scale=MIN_SCALE if min_scale is None else min_scale,
    )
