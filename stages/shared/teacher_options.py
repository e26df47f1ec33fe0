"""Options that select a teacher and the targets that it gives; loads no torch."""

import dataclasses

from milan_pipeline.cli.known_names import teacher_names
from milan_pipeline.cli.options import fields_from, option
from milan_pipeline.stages.shared import inputs
from milan_pipeline.teacher.spec import NORM_HELP, OWN, PRECISIONS, PRIORS, SPACES, TeacherSpec

MOST_TOKENS_A_SIDE = 128
"""Larger grids are typing errors: with 16,384 tokens, the teacher needs gigabytes an image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Which teacher, and which of its features are the targets."""

    teacher: str = option(
        help="The model: a CLIP of open_clip (ViT-B-16), hf-hub:ORG/REPO or local-dir:PATH; a "
        "model of timm, as timm:NAME.TAG; or run:FOLDER, the student of a run.",
        group="Teacher",
        complete=teacher_names,
        look=inputs.teacher,
    )
    pretrained: str | None = option(
        None,
        help="Weights of the teacher: a tag (openai) or a file; default: those of --teacher.",
        group="Teacher",
    )
    precision: str = option(
        "auto",
        help="Number type of the teacher's weights; auto: bf16 if the device has it, else fp32.",
        choices=PRECISIONS,
        group="Teacher",
    )
    teacher_norm: str = option(OWN, help=NORM_HELP, group="Teacher")
    grid: int | None = option(
        None,
        help="Patches along each side of an image; this sets the teacher's input size. Teacher "
        "and student need the same grid; default: the teacher's own.",
        most=MOST_TOKENS_A_SIDE,
        group="Teacher",
        unit="tokens",
    )
    layers: int = option(
        1,
        help="Targets are the mean of this many of the last layers.",
        group="Teacher",
        unit="layers",
    )
    space: str = option(
        "auto",
        help="Take targets after (projected) or before (hidden) CLIP's last projection; auto: "
        "after it, if there is one.",
        choices=SPACES,
        group="Teacher",
    )
    prior: str = option(
        "auto",
        help="Attention that gives the mask prior; auto: the one that the teacher pools with, or "
        "that of its CLS token.",
        choices=PRIORS,
        group="Teacher",
    )

    @property
    def teacher_spec(self) -> TeacherSpec:
        """The teacher and the targets that it is to give."""
        return fields_from(TeacherSpec, self, name=self.teacher, norm=self.teacher_norm)
