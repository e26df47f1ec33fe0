"""`milan-pipeline plan`: what caching targets costs and saves, before anything is written."""

import dataclasses
from typing import Literal

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option, require_least
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.teacher_options import TeacherOptions

TEACHER = tuple(field.name for field in dataclasses.fields(TeacherOptions))
"""Options of extract-targets that select the teacher."""


MOST_SHARDS = 10_000_000
RECIPE_STUDENT = "vit_base_patch16_224"
"""The student whose multiply-adds in a step are known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanTargets(TeacherOptions):
    """Estimate bytes and hours before anything is written, and say whether a store pays.

    Prints the bytes of the target store and of the target shards, the bandwidth that pretraining
    needs, the teacher's hours, and after how many epochs the store pays. With a recipe (--config),
    teacher, views, codec and epochs are those of the recipe.
    """

    images: str | None = option(
        None,
        help="Folder of image shards with manifest.json; default: none, see --samples.",
        group="Input",
        look=inputs.image_shards,
    )
    samples: int | None = count(
        None,
        "images",
        group="Input",
        help="Number of images, if there are no shards yet; default: the number in --images.",
    )
    samples_per_shard: int = count(
        1000, "images", group="Input", help="Images in a shard, with --samples."
    )
    # The mean of ImageNet-1k: 138 GB of 1.28 million JPEGs.
    image_bytes: int = count(
        110_000, "bytes", group="Input", help="Bytes of an image (110kB), with --samples."
    )
    views: int = count(1, "views", group="Views", help="Number of views (crops) of each image.")
    codec: str = common.codec("float16")
    epochs: int = count(
        400, "epochs", group="Schedule", help="Epochs of each student's pretraining."
    )
    students: int = count(
        1,
        "students",
        group="Schedule",
        help="Number of students that are pretrained from the targets.",
    )
    devices: int = count(
        1, "devices", group="Schedule", help="Number of devices that train one student."
    )
    student: str = option(
        RECIPE_STUDENT,
        help="The student; without --student-rate, steps of this default alone are compared with "
        "the teacher's.",
        group="Schedule",
    )
    student_rate: float | None = option(
        None,
        help="Images/s of a student's training without a teacher, on all its devices; default: "
        "unknown.",
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
        help="Bytes/s that the storage delivers (2GB); default: enough.",
        group="Rates",
        unit="bytes/s",
    )
    put_price: float = option(
        0.005,
        help="US dollars for 1,000 PUT or LIST requests to an object store; the default is that "
        "of S3 in us-east-1 (2026).",
        least=0,
        group="Rates",
        unit="dollars",
    )
    get_price: float = option(
        0.0004,
        help="US dollars for 1,000 GET requests; the default is also that of S3.",
        least=0,
        group="Rates",
        unit="dollars",
    )
    out: str | None = option(
        None,
        help="Folder for store and shards; its free space is compared with their bytes; default: "
        "no comparison.",
        group="Output",
    )
    measure: bool = option(
        default=False,
        help="Time the teacher on this machine, with random weights; nothing is downloaded.",
        group="Rates",
    )
    measure_batch: tuple[int, ...] = option(
        (),
        help="Batch size to time; may be repeated; default: two that suit the device.",
        group="Rates",
        unit="images",
    )
    measure_seconds: float = option(
        2.0, help="Seconds of timing for each batch size.", least=0, group="Rates", unit="seconds"
    )
    device: str = common.device("Where the teacher runs")
    threads: int | Literal["auto"] = common.threads()

    def __post_init__(self) -> None:
        require_least(self)
        if (self.images is None) == (self.samples is None):
            raise ConfigError("--images and --samples exclude each other; give one of them")
        if self.samples is not None and self.samples // self.samples_per_shard > MOST_SHARDS:
            raise ConfigError(
                f"--samples {self.samples} is over {MOST_SHARDS} shards, too many to compute with; "
                "give fewer, or more --samples-per-shard"
            )
        if self.measure and self.teacher_rate is not None:
            raise ConfigError("--measure and --teacher-rate exclude each other; give one of them")
        for flag in ("student_rate", "teacher_rate", "read_bandwidth"):
            value = getattr(self, flag)
            if value is not None and not value > 0:
                raise ConfigError(f"--{flag.replace('_', '-')} {value} is not above 0; give a rate")
        if min(self.measure_batch, default=1) < 1:
            raise ConfigError(f"--measure-batch {self.measure_batch} is below 1; give 1 or more")
        _ = self.teacher_spec, parse_codec(self.codec)


run = lazily("milan_pipeline.stages.plan.report:print_plan")
command = stage_command(
    "plan",
    PlanTargets,
    run=run,
    dry_run=None,
    borrowed={
        "extract-targets": (*TEACHER, "images", "views", "codec", "device"),
        "pretrain": ("epochs", "student"),
    },
    example="milan-pipeline plan --samples 1281167 --teacher ViT-B-16 --pretrained openai \\\n"
    "    --codec tiny --student-rate 1500",
)
