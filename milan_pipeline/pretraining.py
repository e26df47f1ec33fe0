"""What a run is made of: its pairs and their order, settled from the data, and its student."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch

from milan_pipeline.codec_files import read_shards_codec
from milan_pipeline.codecs import Codec
from milan_pipeline.decoder_choices import make_decoder
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.examples import ExampleConfig, ToExamples
from milan_pipeline.identity import Identity, stated_identity
from milan_pipeline.manifest import load_manifest
from milan_pipeline.masking import kept_count
from milan_pipeline.order import OrderConfig, StepClock, default_batch, default_lanes
from milan_pipeline.pair_reader import PairSamples
from milan_pipeline.pairs import OnMissing, PairTable, join_pairs
from milan_pipeline.stream import step_clock
from milan_pipeline.student import Student
from milan_pipeline.target_records import RecordLayout, layout_of
from milan_pipeline.vit import build_encoder, encoder_arguments, own_sizes

PUBLISHED_BATCH = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """The pairs of a run, the order they come in, what their targets are and how stored."""

    pairs: PairTable
    order: OrderConfig
    clock: StepClock
    identity: Identity
    identity_hash: str
    codec: Codec

    @functools.cached_property
    def layout(self) -> RecordLayout:
        """The layout of the target records."""
        return layout_of(self.identity)

    @functools.cached_property
    def shuffled_bytes(self) -> int:
        """About how many bytes of shards all lanes' blocks span: a view's, at most."""
        together = self.order.lanes * self.order.block
        return max(
            int(self.pairs.total_bytes(view) * min(1, together / self.pairs.counts(view).sum()))
            for view in range(len(self.pairs.views))
        )

    @property
    def samples(self) -> PairSamples:
        """The pairs as a table that the order runs over."""
        return PairSamples(self.pairs)

    @property
    def missing(self) -> int:
        """How many samples have one side only, and were left out."""
        return self.pairs.missing

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run's record says of its inputs."""
        return {
            "identity_hash": self.identity_hash,
            "identity": self.identity,
            "pairs": self.pairs.fingerprint(),
        }

    def target_shape(self, spec: "StudentSpec") -> tuple[tuple[int, int], int]:
        """Return the grid and the width of the targets, whatever the student."""
        del spec
        return self.grid, self.layout.width

    def targets(self) -> Codec:
        """Return what decodes the targets."""
        return self.codec

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the targets' patches."""
        rows, columns = self.identity["teacher"]["grid"]
        return int(rows), int(columns)

    def to_examples(self, student: Student, *, mask_ratio: float, masking: str) -> ToExamples:
        """Say how a student's examples are made; raises as `examples` does."""
        return ToExamples(self.examples(student, mask_ratio=mask_ratio, masking=masking))

    def examples(
        self, student: Student, *, mask_ratio: float, masking: str = "semantic"
    ) -> ExampleConfig:
        """Say how a student's examples are cut and masked, and which targets it needs.

        Raises:
            ConfigError: the ratio keeps or masks nothing.
        """
        embed = student.encoder.patch_embed
        return ExampleConfig(
            image_size=int(embed.grid_size[0] * embed.patch_size[0]),
            patch_size=int(embed.patch_size[0]),
            kept=kept_count(self.layout.patches, mask_ratio),
            mask_seed=self.order.seed,
            layout=self.layout,
            masking=masking,
            supervise=student.supervise,
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
    identity = stated_identity(target_manifest.common, what=targets)
    packed = 1 + max((int(shard.details["view"]) for shard in target_manifest.shards), default=-1)
    views = views or packed
    if not 1 <= views <= packed:
        raise ConfigError(
            f"--views {views} is more than the {packed} that {targets} holds; pack more views"
        )
    codec = read_shards_codec(targets, identity)
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
        clock=step_clock(PairSamples(pairs), order),
        identity=identity,
        identity_hash=target_manifest.common["identity_hash"],
        codec=codec,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """What a student is, apart from the targets that it learns from.

    Attributes:
        name: of a ViT in timm.
        image_size: height and width of its views, in pixels; None is what fits the targets where
            `patch_size` is given, else the name's own.
        patch_size: in pixels; None is the name's own, as for the next three.
        width: of the encoder.
        depth: blocks of the encoder.
        heads: attention heads of the encoder.
        decoder: see `decoder_choices.make_decoder`, as for the next three.
        decoder_width: channels inside the decoder.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        supervise: which tokens it predicts; see `student.supervised_slice`.
    """

    name: str
    image_size: int | None = None
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    decoder: str = "prompting"
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    supervise: str = "all"

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "StudentSpec":
        """Read the options of `pretrain`, as its record has them; those not there are defaults."""
        names = {field.name for field in dataclasses.fields(cls)} & content.keys()
        return cls(name=content["student"], **{name: content[name] for name in names})

    def sizes(self, grid: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return the image size and the patch size, in pixels; `grid` is the targets'.

        Raises:
            ConfigError: there is no such ViT, or the sizes do not divide.
        """
        own_image, own_patch = own_sizes(self.name)
        patch = self.patch_size or own_patch
        fitting = patch * grid[0] if grid and self.patch_size else own_image
        image = self.image_size or fitting
        if image % patch:
            raise ConfigError(
                f"--image-size {image} is no multiple of the student's patches of {patch} pixels; "
                f"give {patch * max(1, round(image / patch))} or another --patch-size"
            )
        return image, patch


def build_student(
    spec: StudentSpec, *, grid: tuple[int, int], target_width: int, seed: int
) -> tuple[Student, dict[str, Any]]:
    """Build a student for targets of a grid and width, its weights a function of the seed.

    Args:
        spec: what it is.
        grid: rows and columns of the targets' patches.
        target_width: D, channels of a target.
        seed: of the weights; torch's global random state is left as it was.

    Returns:
        The student, and the arguments with which timm makes its encoder again.

    Raises:
        ConfigError: the sizes do not fit each other, or the targets.
        MismatchError: the targets' grid is not square.
    """
    arguments: dict[str, Any] = {
        "image_size": _fitting_image_size(spec, grid),
        "patch_size": spec.patch_size,
        "width": spec.width,
        "depth": spec.depth,
        "heads": spec.heads,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(spec.name, **arguments)
        decoder = make_decoder(
            spec.decoder,
            encoder.embed_dim,
            grid,
            target_width,
            width=spec.decoder_width,
            depth=spec.decoder_depth,
            heads=spec.decoder_heads,
        )
    return Student(encoder, decoder, spec.supervise), encoder_arguments(spec.name, **arguments)


def _fitting_image_size(spec: StudentSpec, grid: tuple[int, int]) -> int:
    """Return the student's image size; refuse a grid that is not the targets'."""
    rows, columns = grid
    if rows != columns:
        raise MismatchError(f"the targets have a {rows}x{columns} grid; take square ones")
    image, patch = spec.sizes(grid)
    side = image // patch
    if side != rows:
        raise ConfigError(
            f"--student {spec.name!r} at {image} pixels in patches of {patch} has a {side}x{side} "
            f"grid, the targets have {rows}x{columns}; give --image-size {patch * rows}, or "
            f"targets of a {side}x{side} grid"
        )
    return image
