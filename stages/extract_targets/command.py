"""`milan-pipeline extract-targets`: image shards -> target store. CLIP runs here and only here."""

import dataclasses

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import option
from milan_pipeline.cluster.work import Part
from milan_pipeline.codecs.registry import CODEC_HELP, parse_codec
from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.views import VIEW_POLICIES, ViewPolicy
from milan_pipeline.teacher.spec import NORMS, PRECISIONS, PRIORS, SPACES, TeacherSpec
from stages.shared.dask_options import DaskOptions

MOST_TOKENS_A_SIDE = 128
"""Larger grids are typing errors: with 16,384 tokens, the teacher needs gigabytes an image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractTargets(DaskOptions):
    """Run a CLIP image tower over image shards and store its patch features and mask priors.

    If the command is killed or stopped, run it again: finished units are kept. With more --views,
    or with changed or added shards, only what is missing is done. On many machines, use --part K/N
    for job arrays, or --scheduler or --processes for Dask; `milan-pipeline status` shows progress.
    """

    images: str = option(
        help="Folder of image shards with manifest.json.", role="extent", group="Input"
    )
    out: str = option(
        help="Target store to write, e.g. targets.zarr.", role="execution", group="Output"
    )
    teacher: str = option(
        help="open_clip model (ViT-B-16), hf-hub:ORG/REPO or local-dir:PATH.", group="Teacher"
    )
    pretrained: str | None = option(
        None,
        help="Weights tag (openai) or checkpoint file; default: those of --teacher.",
        group="Teacher",
    )
    views: int = option(1, help="Views of each image.", role="extent", group="Views", unit="views")
    view_policy: str = option(
        "random-resized-crop", help="How views are cut.", choices=VIEW_POLICIES, group="Views"
    )
    view_seed: int = option(0, help="Seed of the crops.", group="Views", unit="number")
    min_scale: float = option(
        0.2,
        help="Smallest share of the image's area that a crop takes.",
        group="Views",
        unit="share",
    )
    codec: str = option("float16", help=CODEC_HELP, group="Targets")
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
    compile: bool = option(
        default=False,
        help="Have torch compile the teacher's blocks; this changes last bits of targets.",
        group="Teacher",
    )
    device: str = option(
        "auto",
        help="Where the teacher runs: auto, cpu, cuda.",
        role="execution",
        group="This machine",
    )
    batch_size: int = option(
        64, help="Images in a teacher batch.", role="execution", group="This machine", unit="images"
    )
    workers: int = option(
        2, help="Decoding threads.", role="execution", group="This machine", unit="threads"
    )
    max_bad_fraction: float = option(
        0.01,
        help="Largest share of images that may be unreadable; above 0, one is always allowed. With "
        "--part, the share of the part's images; whoever does the last unit checks all images.",
        role="execution",
        group="Input",
        unit="share",
    )
    overwrite: bool = option(
        default=False,
        help="Replace targets made with other options.",
        role="execution",
        group="Output",
    )
    init: bool = option(
        default=False,
        help="Only create the store and its record, which the parts of a job array then share.",
        role="execution",
        group="Several machines",
    )
    part: str | None = option(
        None,
        help="K/N, 0 <= K < N: do units K, K+N, K+2N, … of all, done or not. To submit some parts "
        "of an array again, give the same N; default: all units.",
        role="execution",
        group="Several machines",
    )

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 100:
            raise ConfigError(f"--views {self.views} is not within 1 to 100; give a number that is")
        if self.view_policy == "center" and self.views > 1:
            raise ConfigError(
                f"--view-policy center gives one view, --views asks for {self.views}; give 1"
            )
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"--batch-size {self.batch_size} or --workers {self.workers} is too small; "
                "give at least 1 and 0"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"--max-bad-fraction {self.max_bad_fraction} is not within 0 to 1; give a share"
            )
        super().__post_init__()
        self._require_one_way_to_share()
        _ = self.policy, self.teacher_spec, self.own_part, parse_codec(self.codec)

    def _require_one_way_to_share(self) -> None:
        if self.init and (self.part or self.on_dask):
            raise ConfigError(
                "--init does no unit, so --part, --scheduler and --processes are for the runs "
                "after it; leave them out"
            )
        if self.overwrite and self.part:
            raise ConfigError(
                "--overwrite with --part would have each part overwrite what others did; run "
                "`extract-targets --init --overwrite` once, then the parts without --overwrite"
            )

    @property
    def own_part(self) -> Part | None:
        """The part of the units that this job does; None for all."""
        return None if self.part is None else Part.parse(self.part)

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
            compile=self.compile,
        )

    @property
    def policy(self) -> ViewPolicy:
        """How views are cut."""
        return ViewPolicy(name=self.view_policy, seed=self.view_seed, scale=(self.min_scale, 1.0))


def run(config: ExtractTargets) -> None:
    """Do every unit that is not done, or those of this part."""
    from stages.extract_targets.run import extract

    with stop_request() as stop:
        extract(config, stop)


def dry_run(config: ExtractTargets) -> None:
    """Print what is left and what it will take, without loading the teacher's weights."""
    from stages.extract_targets.plan import describe

    describe(config)


command = stage_command(
    "extract-targets",
    ExtractTargets,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline extract-targets --images images/train --out targets.zarr \\\n"
    "    --teacher ViT-B-16 --pretrained openai",
)
