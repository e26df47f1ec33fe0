"""`milan-pipeline plan`: what caching targets costs and saves, before anything is written."""

import dataclasses

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import option, require_least
from milan_pipeline.codecs.registry import CODEC_HELP, parse_codec
from milan_pipeline.core.console import report
from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.spec import NORMS, PRECISIONS, PRIORS, SPACES, TeacherSpec
from stages.extract_targets.command import MOST_TOKENS_A_SIDE

TEACHER = (
    *("teacher", "pretrained", "precision", "teacher_norm"),
    *("grid", "layers", "space", "prior"),
)
"""Options of extract-targets that select the teacher."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanTargets:
    """Compute what targets of a data set will take, and whether caching them pays. Writes nothing.

    Prints the bytes of the target store and of the target shards, the bandwidth that pretraining
    needs, teacher hours, and the break-even against a teacher in every training step. With a recipe
    (--config), the teacher, views, codec and epochs are those of the recipe's stages.
    """

    images: str | None = option(
        None,
        help="Folder of image shards with manifest.json; default: none, see --samples.",
        group="Input",
    )
    samples: int | None = option(
        None,
        help="Number of images, if there are no shards yet; default: those of --images.",
        least=1,
        group="Input",
        unit="images",
    )
    samples_per_shard: int = option(
        1000, help="Images in a shard, with --samples.", least=1, group="Input", unit="images"
    )
    # The mean of ImageNet-1k: 138 GB of 1.28 million JPEGs.
    image_bytes: int = option(
        110_000, help="Bytes of an image, with --samples.", least=1, group="Input", unit="bytes"
    )
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
    teacher_norm: str = option(
        "own",
        help="Mean and std of the teacher's pixels; MILAN used imagenet.",
        choices=NORMS,
        group="Teacher",
    )
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
    views: int = option(1, help="Views of each image.", least=1, group="Views", unit="views")
    codec: str = option("float16", help=CODEC_HELP, group="Targets")
    epochs: int = option(
        400, help="Epochs of each student's pretraining.", least=1, group="Schedule", unit="epochs"
    )
    students: int = option(
        1,
        help="Students that are pretrained from the targets.",
        least=1,
        group="Schedule",
        unit="students",
    )
    devices: int = option(
        1, help="Devices that train one student.", least=1, group="Schedule", unit="devices"
    )
    student_rate: float | None = option(
        None,
        help="Images/s of a student without teacher, on all its devices; default: unknown.",
        group="Rates",
        unit="images/s",
    )
    teacher_rate: float | None = option(
        None,
        help="Images/s of the teacher on one device; default: unknown, or measured by --measure.",
        group="Rates",
        unit="images/s",
    )
    read_bandwidth: float | None = option(
        None,
        help="Bytes/s that the storage can deliver; default: as many as are needed.",
        group="Rates",
        unit="bytes/s",
    )
    out: str | None = option(
        None,
        help="Place of store and shards, to compare with its free space; default: not compared.",
        group="Output",
    )
    measure: bool = option(
        default=False,
        help="Time the teacher here, with random weights; nothing is downloaded.",
        group="Rates",
    )
    measure_batch: tuple[int, ...] = option(
        (),
        help="Batch size to time; repeat for more; default: two that suit the device.",
        group="Rates",
        unit="images",
    )
    measure_seconds: float = option(
        2.0, help="Seconds that each is timed.", least=0, group="Rates", unit="seconds"
    )
    device: str = option(
        "auto",
        help="Where the teacher runs: auto, cpu, cuda.",
        group="This machine",
        role="execution",
    )

    def __post_init__(self) -> None:
        require_least(self)
        if (self.images is None) == (self.samples is None):
            raise ConfigError("--images and --samples exclude each other; give one of them")
        if self.measure and self.teacher_rate is not None:
            raise ConfigError("--measure and --teacher-rate exclude each other; give one of them")
        for flag in ("student_rate", "teacher_rate", "read_bandwidth"):
            value = getattr(self, flag)
            if value is not None and not value > 0:
                raise ConfigError(f"--{flag.replace('_', '-')} {value} is not above 0; give a rate")
        if min(self.measure_batch, default=1) < 1:
            raise ConfigError(f"--measure-batch {self.measure_batch} is below 1; give 1 or more")
        _ = self.teacher_spec, parse_codec(self.codec)

    @property
    def teacher_spec(self) -> TeacherSpec:
        """The teacher and the targets that it is to give."""
        return TeacherSpec(
            name=self.teacher,
            pretrained=self.pretrained,
            precision=self.precision,
            norm=self.teacher_norm,
            grid=self.grid,
            layers=self.layers,
            space=self.space,
            prior=self.prior,
        )


def run(config: PlanTargets) -> None:
    """Print the plan."""
    from stages.plan.report import PlanReport

    found = PlanReport(config)
    report(found.lines(), found.document())


command = stage_command(
    "plan",
    PlanTargets,
    run=run,
    dry_run=None,
    borrowed={
        "extract-targets": (*TEACHER, "images", "views", "codec", "device"),
        "pretrain": ("epochs",),
    },
    example="milan-pipeline plan --samples 1281167 --teacher ViT-B-16 --pretrained openai \\\n"
    "    --codec tiny --student-rate 1500",
)
