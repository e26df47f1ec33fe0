"""The data of a pretraining run on stored targets: pairs and their order."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.data.join_pairs import join_pairs
from milan_pipeline.data.order import OrderChoice, OrderConfig
from milan_pipeline.data.pair_table import OnMissing, PairTable
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.models.build import StudentSpec
from milan_pipeline.models.student import Student
from milan_pipeline.pretraining.examples import ExampleConfig, ToExamples
from milan_pipeline.pretraining.masking import kept_count
from milan_pipeline.pretraining.phi_s import StandardisedTargets
from milan_pipeline.pretraining.teachers import (
    TeacherTargets,
    read_teacher,
    recorded,
    require_distinct,
    require_same_views,
)
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.shards.columns import read_image_columns, read_target_columns

PUBLISHED_BATCH = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """The pairs of a run, their order, and the targets of each teacher.

    Attributes:
        pairs: images with a target of each teacher.
        order: of the pairs.
        teachers: in the order of the student's heads, that of their names.
        prior_from: the name of the teacher whose prior masks are drawn by.
        resample: whether targets of another grid than the student's are resampled.
        packed: how many views the shards of each teacher hold, by its name.
    """

    pairs: PairTable
    order: OrderConfig
    teachers: tuple[TeacherTargets, ...]
    prior_from: str
    resample: bool = False
    packed: Mapping[str, int]

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
        """The teachers' licences; None unless the identity of each states one."""
        stated = [teacher.identity["teacher"].get("license") for teacher in self.teachers]
        return " and ".join(dict.fromkeys(stated)) if all(stated) else None

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run's record says of its inputs; `identities_of` reads it."""
        return recorded(self.teachers) | {"pairs": self.pairs.fingerprint()}

    @property
    def identities(self) -> dict[str, Identity]:
        """What identifies the targets of each teacher, by its name."""
        return {teacher.name: teacher.identity for teacher in self.teachers}

    def target_shape(self, spec: "StudentSpec") -> tuple[tuple[int, int], int]:
        """Return the grid and the width of the targets of all teachers, as a student learns them.

        Raises:
            ConfigError: the sizes of the student do not divide.
        """
        grid = self.grid
        if self.resample:
            image, patch = spec.sizes(grid)
            grid = (image // patch, image // patch)
        return grid, sum(teacher.layout.width for teacher in self.teachers)

    def targets(self) -> dict[str, Codec | StandardisedTargets]:
        """Return what decodes the targets of each teacher."""
        return {teacher.name: teacher.decoder for teacher in self.teachers}

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the first teacher's patches."""
        return self.teachers[0].grid

    def other_grids(self, student: Student) -> dict[str, tuple[int, int]]:
        """Return the grids that are not the student's, by name of the teacher."""
        own = tuple(student.encoder.patch_embed.grid_size)
        return {teacher.name: teacher.grid for teacher in self.teachers if teacher.grid != own}

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
        names = [teacher.name for teacher in self.teachers]
        others = self.other_grids(student)
        return ExampleConfig(
            image_size=int(embed.grid_size[0] * embed.patch_size[0]),
            patch_size=int(embed.patch_size[0]),
            kept=kept_count(int(embed.num_patches), mask_ratio),
            mask_seed=self.order.seed,
            layouts=tuple(teacher.layout for teacher in self.teachers),
            prior_from=names.index(self.prior_from),
            masking=masking,
            supervise=student.supervise,
            other_grids={names.index(name): grid for name, grid in others.items()},
        )


def open_run_data(
    images: str,
    targets: Mapping[str, str],
    *,
    views: int | None,
    on_missing: OnMissing,
    order: OrderChoice,
    prior_from: str | None = None,
    phi_s: bool = False,
    resample: bool = False,
) -> RunData:
    """Join images and targets, and settle the order.

    Args:
        images: folder of image shards.
        targets: folder of target shards of each teacher by its name; a single one needs no name.
        views: how many views to use; None is all that are packed.
        on_missing: what to do with images without a target, or the reverse.
        order: what the options say of the order.
        prior_from: the teacher whose prior masks are drawn by; None is the first.
        phi_s: whether targets are standardised by PHI-S.
        resample: whether targets of another grid than the student's are resampled.

    Raises:
        ConfigError: the data hold fewer views or pairs than asked for, or no PHI-S; or two teachers
            are one.
        DataError: an index of the first or last shards is damaged.
        MissingDataError, MismatchError: images and targets do not belong together, no image has
            a target, or teachers saw different views.
    """
    image_shards = read_image_columns(images)
    columns = {name: read_target_columns(targets[name]) for name in sorted(targets)}
    teachers = tuple(
        read_teacher(name, targets[name], found.shards.head.common, phi_s=phi_s)
        for name, found in columns.items()
    )
    require_distinct(teachers)
    require_same_views(teachers, same_grid=not resample)
    packed = {name: 1 + int(found.view_t.max(initial=-1)) for name, found in columns.items()}
    fewest = min(packed, key=packed.__getitem__)
    views = views or packed[fewest]
    if not 1 <= views <= packed[fewest]:
        raise ConfigError(
            f"--views {views} is more than the {packed[fewest]} that {targets[fewest]} holds; "
            "pack more views"
        )
    pairs = join_pairs(
        image_shards,
        list(columns.values()),
        views=views,
        on_missing=on_missing,
        or_skip=" or --on-missing skip",
    )
    least = min(int(pairs.counts(view).sum()) for view in range(views))
    if not least:
        raise MissingDataError(
            f"no image of {images} has a target in {' and '.join(targets.values())} in each of the "
            f"{views} views; give the targets of these images, or make them with "
            "`milan-pipeline extract-targets`"
        )
    pairs.require_indices()
    return RunData(
        pairs=pairs,
        order=order.settled(least, PUBLISHED_BATCH),
        teachers=teachers,
        prior_from=next(iter(targets)) if prior_from is None else prior_from,
        resample=resample,
        packed=packed,
    )
