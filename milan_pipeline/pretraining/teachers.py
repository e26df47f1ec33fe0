"""The teachers whose targets a run learns: what their target shards say, and what a run records.

A run learns from one teacher or from several. Several must have seen the same views of the same
images; on one grid, unless their targets are resampled.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from milan_pipeline.codecs.interface import Codec
from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.pretraining.phi_s import PhiS, StandardisedTargets
from milan_pipeline.pretraining.phi_s_file import PHI_S, read_phi_s
from milan_pipeline.provenance.identity import Identity, differences, stated_identity, without
from milan_pipeline.targets.codec_files import read_shards_codec
from milan_pipeline.targets.shard_records import RecordLayout, layout_of

NOT_SEEN = {"teacher_sees"}
"""Parts of a view policy in which teachers may differ, since the student's views do not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherTargets:
    """The targets of one teacher.

    Attributes:
        name: of the teacher in this run; empty where there is only one, without a name.
        folder: of its target shards.
        identity: of the targets.
        identity_hash: of the targets.
        codec: decodes them.
        phi_s: standardises them; None where it is not asked for.
        phi_s_sha256: of its file.
    """

    name: str
    folder: str
    identity: Identity
    identity_hash: str
    codec: Codec
    phi_s: PhiS | None = None
    phi_s_sha256: str | None = None

    @property
    def decoder(self) -> Codec | StandardisedTargets:
        """What gives the targets that are learnt."""
        return self.codec if self.phi_s is None else StandardisedTargets(self.codec, self.phi_s)

    @functools.cached_property
    def layout(self) -> RecordLayout:
        """The layout of the target records."""
        return layout_of(self.identity)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the targets' patches."""
        rows, columns = self.identity["teacher"]["grid"]
        return int(rows), int(columns)


def read_teacher(
    name: str, folder: str, stated: Mapping[str, Any], *, phi_s: bool = False
) -> TeacherTargets:
    """Return the targets of a teacher.

    Args:
        name: of the teacher.
        folder: of its target shards.
        stated: what their manifest says that they have in common.
        phi_s: whether they are to be standardised.

    Raises:
        ConfigError: PHI-S was not fitted to them.
        DataError: that is damaged, or the arrays of the codec or of PHI-S are.
    """
    identity = stated_identity(stated, what=folder)
    return TeacherTargets(
        name=name,
        folder=folder,
        identity=identity,
        identity_hash=stated["identity_hash"],
        codec=read_shards_codec(folder, identity),
        phi_s=read_phi_s(folder, stated) if phi_s else None,
        phi_s_sha256=stated[PHI_S]["sha256"] if phi_s else None,
    )


def require_distinct(teachers: Sequence[TeacherTargets]) -> None:
    """Refuse the same targets under two names: the second teacher is one that was not given.

    Raises:
        ConfigError: two are the same; both folders are named.
    """
    first: dict[str, TeacherTargets] = {}
    for teacher in teachers:
        other = first.setdefault(teacher.identity_hash, teacher)
        if other is not teacher:
            raise ConfigError(
                f"--targets {other.name}={other.folder} and {teacher.name}={teacher.folder} are "
                "the same targets; give each teacher its own, and weigh them by --target-weight"
            )


def require_same_views(teachers: Sequence[TeacherTargets], *, same_grid: bool = True) -> None:
    """Refuse teachers that saw different views or, with `same_grid`, that have different grids.

    Raises:
        MismatchError: they do; the first field that differs is named, and the remedy.
    """
    first = teachers[0]
    for other in teachers[1:]:
        own, theirs = (without(each.identity["view_policy"], NOT_SEEN) for each in (first, other))
        if found := differences(own, theirs):
            field, ours, theirs = found[0]
            raise MismatchError(
                f"--targets {first.name} and {other.name} are of different views: "
                f"view_policy.{field} is {ours!r} in {first.folder} and {theirs!r} in "
                f"{other.folder}; run `milan-pipeline extract-targets` for {other.name} "
                f"with --views-from {first.folder}, and pack-targets"
            )
        if same_grid and first.grid != other.grid:
            (rows, columns), (their_rows, their_columns) = first.grid, other.grid
            raise MismatchError(
                f"--targets {first.name} has a grid of {rows}x{columns} patches and {other.name} "
                f"one of {their_rows}x{their_columns}; give --resample-targets, or run "
                f"`milan-pipeline extract-targets --grid {rows}` for {other.name}, and pack-targets"
            )


def recorded(teachers: Sequence[TeacherTargets]) -> dict[str, Any]:
    """Return what a run's record says of its targets: those of one teacher, or each by name."""
    parts = {}
    for teacher in teachers:
        part = {"identity_hash": teacher.identity_hash, "identity": teacher.identity}
        known = {} if teacher.phi_s_sha256 is None else {PHI_S: teacher.phi_s_sha256}
        parts[teacher.name] = part | known
    return {"targets": parts} if len(parts) > 1 else parts[teachers[0].name]
