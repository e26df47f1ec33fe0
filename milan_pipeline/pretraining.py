"""What a run is made of: its pairs and their order, settled from the data, and its student."""

import dataclasses
import functools
from typing import Any

import torch

from milan_pipeline.decoder import PromptingDecoder
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.examples import ExampleConfig
from milan_pipeline.identity import Identity
from milan_pipeline.manifest import load_manifest
from milan_pipeline.masking import kept_count
from milan_pipeline.order import OrderConfig, StepClock, default_batch, default_lanes
from milan_pipeline.pairs import OnMissing, PairTable, join_pairs
from milan_pipeline.stream import step_clock
from milan_pipeline.student import Student, build_encoder, encoder_arguments, patch_size_of
from milan_pipeline.target_records import RecordLayout, layout_of

PUBLISHED_BATCH = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """The pairs of a run, the order they come in, and what their targets are."""

    pairs: PairTable
    order: OrderConfig
    clock: StepClock
    identity: Identity
    identity_hash: str

    @functools.cached_property
    def layout(self) -> RecordLayout:
        """The layout of the target records."""
        return layout_of(self.identity)

    @property
    def grid_side(self) -> int:
        """Rows, and columns, of the targets' patches.

        Raises:
            MismatchError: the grid is not square.
        """
        height, width = self.identity["teacher"]["grid"]
        if height != width:
            raise MismatchError(f"the targets have a {height}x{width} grid; take square ones")
        return int(height)

    def examples(self, student: Student, *, mask_ratio: float) -> ExampleConfig:
        """Say how a student's examples are cut and masked.

        Raises:
            ConfigError: the ratio keeps or masks nothing.
        """
        patch_size = int(student.encoder.patch_embed.patch_size[0])
        return ExampleConfig(
            image_size=self.grid_side * patch_size,
            patch_size=patch_size,
            kept=kept_count(self.layout.patches, mask_ratio),
            mask_seed=self.order.seed,
            layout=self.layout,
        )


def open_run_data(
    images: str,
    targets: str,
    *,
    views: int | None,
    on_missing: OnMissing,
    batch: int | None,
    lanes: int | None,
    block: int,
    seed: int,
) -> RunData:
    """Join images and targets and settle the order; None leaves a choice to the data.

    Args:
        images: folder of image shards.
        targets: folder of target shards.
        views: how many views to use; None is all that are packed.
        on_missing: what to do with samples that have one side only.
        batch: pairs in a global batch; None is the published size, for small data less.
        lanes: of the order; None is up to 64.
        block: pairs of a lane that are shuffled together.
        seed: of the order.

    Raises:
        ConfigError: the data hold fewer views or pairs than asked for.
        MissingDataError, MismatchError: images and targets do not belong together.
    """
    image_manifest = load_manifest(images, kind="images")
    target_manifest = load_manifest(targets, kind="targets")
    packed = 1 + max((int(shard.details["view"]) for shard in target_manifest.shards), default=-1)
    views = views or packed
    if not 1 <= views <= packed:
        raise ConfigError(
            f"--views {views} is more than the {packed} that {targets} holds; pack more views"
        )
    pairs = join_pairs(image_manifest, target_manifest, views=views, on_missing=on_missing)
    least = min(int(pairs.counts(view).sum()) for view in range(views))
    batch = batch or default_batch(least, PUBLISHED_BATCH)
    if batch > least:
        raise ConfigError(
            f"--batch-size {batch} is more than the {least} pairs of a view; give at most {least}, "
            "or more images and their targets"
        )
    lanes = lanes or default_lanes(batch)
    order = OrderConfig(seed=seed, batch=batch, lanes=lanes, block=block)
    return RunData(
        pairs=pairs,
        order=order,
        clock=step_clock(pairs, order),
        identity=target_manifest.common["identity"],
        identity_hash=target_manifest.common["identity_hash"],
    )


def build_student(
    name: str,
    data: RunData,
    *,
    seed: int,
    patch_size: int | None,
    width: int | None,
    depth: int | None,
    heads: int | None,
    decoder_width: int,
    decoder_depth: int,
    decoder_heads: int,
) -> tuple[Student, dict[str, Any]]:
    """Build the student for the targets' grid and width, its weights drawn from the seed.

    Args:
        name: of a plain ViT in timm.
        data: what it will learn from.
        seed: of the weights.
        patch_size: in pixels; None is the name's own, as for the next three.
        width: of the encoder.
        depth: of the encoder.
        heads: of the encoder.
        decoder_width: of the decoder.
        decoder_depth: of the decoder.
        decoder_heads: of the decoder.

    Returns:
        The student, and the arguments with which timm makes its encoder again.

    Raises:
        ConfigError: the sizes do not fit.
        MismatchError: the targets' grid is not square.
    """
    side = data.grid_side
    arguments: dict[str, Any] = {
        "image_size": side * (patch_size or patch_size_of(name)),
        "patch_size": patch_size,
        "width": width,
        "depth": depth,
        "heads": heads,
    }
    torch.manual_seed(seed)
    encoder = build_encoder(name, **arguments)
    decoder = PromptingDecoder(
        encoder.embed_dim,
        (side, side),
        data.layout.width,
        width=decoder_width,
        depth=decoder_depth,
        heads=decoder_heads,
    )
    return Student(encoder, decoder), encoder_arguments(name, **arguments)
