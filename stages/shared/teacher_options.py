"""Options that select a teacher and the targets that it gives; loads no torch."""

import dataclasses

from milan_pipeline.cli.options import fields_from, option
from milan_pipeline.teacher.spec import NORM_HELP, OWN, PRECISIONS, PRIORS, SPACES, TeacherSpec

MOST_TOKENS_A_SIDE = 128
"""Larger grids are typing errors: with 16,384 tokens, the teacher needs gigabytes an image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Which teacher, and which of its features are the targets."""

    teacher: str = option(
        help="open_clip model (ViT-B-16), hf-hub:ORG/REPO or local-dir:PATH.", group="Teacher"
    )
    pretrained: str | None = option(
        None,
        help="Weights tag (openai) or checkpoint file; default: those of --teacher.",
        group="Teacher",
    )
    precision: str = option(
        "auto",
        help="Type of the teacher's weights; auto: bf16 if the device has it, else fp32.",
        choices=PRECISIONS,
        group="Teacher",
    )
    teacher_norm: str = option(OWN, help=NORM_HELP, group="Teacher")
    grid: int | None = option(
        None,
        help="Tokens along each side; sets the teacher's input size; default: its own.",
        most=MOST_TOKENS_A_SIDE,
        group="Teacher",
        unit="tokens",
    )
    layers: int = option(
        1, help="Targets are the mean of this many last layers.", group="Teacher", unit="layers"
    )
    space: str = option(
        "projected",
        help="Targets before or after the last projection.",
        choices=SPACES,
        group="Teacher",
    )
    prior: str = option(
        "auto",
        help="Source of the mask prior; auto: what the teacher pools by.",
        choices=PRIORS,
        group="Teacher",
    )

    @property
    def teacher_spec(self) -> TeacherSpec:
        """The teacher and the targets that it is to give."""
        return fields_from(TeacherSpec, self, name=self.teacher, norm=self.teacher_norm)
