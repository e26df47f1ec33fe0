"""The data of a pretraining run on stored targets: pairs and their order."""

import dataclasses
import functools
from typing import Any

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.data.order import OrderChoice, OrderConfig
from milan_pipeline.data.pair_table import OnMissing, PairTable, join_pairs
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.models.build import StudentSpec
from milan_pipeline.models.student import Student
from milan_pipeline.pretraining.examples import ExampleConfig, ToExamples
from milan_pipeline.pretraining.masking import kept_count
from milan_pipeline.provenance.identity import Identity, stated_identity
from milan_pipeline.shards.columns import read_image_columns, read_target_columns
from milan_pipeline.targets.codec_files import read_shards_codec
from milan_pipeline.targets.shard_records import RecordLayout, layout_of

PUBLISHED_BATCH = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """The pairs of a run, their order, and the identity and codec of their targets."""

    pairs: PairTable
    order: OrderConfig
    identity: Identity
    identity_hash: str
    codec: Codec

    @functools.cached_property
    def layout(self) -> RecordLayout:
        """The layout of the target records."""
        return layout_of(self.identity)

    @functools.cached_property
    def shuffled_bytes(self) -> int:
        """About how many bytes of shards are shuffled together, for the largest view."""
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
        """The number of images without a target, and the reverse, that were left out."""
        return self.pairs.missing

    @property
    def licence(self) -> str | None:
        """The licence of the teacher, if its identity states one."""
        licence: str | None = self.identity["teacher"].get("license")
        return licence

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run's record says of its inputs."""
        return {
            "identity_hash": self.identity_hash,
            "identity": self.identity,
            "pairs": self.pairs.fingerprint(),
        }

    def target_shape(self, spec: "StudentSpec") -> tuple[tuple[int, int], int]:
        """Return the grid and the width of the targets, for any student."""
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
    order: OrderChoice,
) -> RunData:
    """Join images and targets, and settle the order.

    Args:
        images: folder of image shards.
        targets: folder of target shards.
        views: how many views to use; None is all that are packed.
        on_missing: what to do with images without a target, or the reverse.
        order: what the options say of the order.

    Raises:
        ConfigError: the data hold fewer views or pairs than asked for.
        DataError: an index of the first or last shards is damaged.
        MissingDataError, MismatchError: images and targets do not belong together, or no image has
            a target.
    """
    image_shards, target_shards = read_image_columns(images), read_target_columns(targets)
    stated = target_shards.shards.head.common
    identity = stated_identity(stated, what=targets)
    packed = 1 + int(target_shards.view_t.max(initial=-1))
    views = views or packed
    if not 1 <= views <= packed:
        raise ConfigError(
            f"--views {views} is more than the {packed} that {targets} holds; pack more views"
        )
    codec = read_shards_codec(targets, identity)
    pairs = join_pairs(image_shards, target_shards, views=views, on_missing=on_missing)
    least = min(int(pairs.counts(view).sum()) for view in range(views))
    if not least:
        raise MissingDataError(
            f"no image of {images} has a target in {targets} in each of the {views} views; give "
            "the targets of these images, or make them with `milan-pipeline extract-targets`"
        )
    pairs.require_indices()
    return RunData(
        pairs=pairs,
        order=order.settled(least, PUBLISHED_BATCH),
        identity=identity,
        identity_hash=stated["identity_hash"],
        codec=codec,
    )
