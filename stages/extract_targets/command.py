"""`milan-pipeline extract-targets`: image shards -> target store. CLIP runs here and only here."""

import dataclasses
from typing import Literal

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import AUTO, option
from milan_pipeline.cluster.work import Part
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.views import TEACHER_SEES, ViewPolicy
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.dask_options import DaskOptions
from milan_pipeline.stages.shared.teacher_options import TeacherOptions
from milan_pipeline.teacher.published_weights import require_known_tag

USUAL_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractTargets(TeacherOptions, DaskOptions):
    """Run CLIP on views of all images, once, and store its patch features and mask priors.

    If the command is killed or stopped, run it again: finished units are kept. With more --views,
    or with changed or added shards, only what is missing is done. On many machines, use --part K/N
    for job arrays, or --scheduler or --processes for Dask; `milan-pipeline status` shows progress.
    """

    images: str = option(
        help="Folder of image shards with manifest.json.",
        role="extent",
        group="Input",
        look=inputs.image_shards,
    )
    out: str = option(
        help="Target store to write, e.g. targets.zarr.", role="execution", group="Output"
    )
    views: int | None = option(
        None,
        help="Number of views (crops) of each image; default: 1, with --views-from as many as "
        "there.",
        role="extent",
        least=1,
        most=100,
        group="Views",
        unit="views",
    )
    view_policy: str = option(
        "random-resized-crop",
        help="How a view is cut from its image: random-resized-crop or center. Changes of colours "
        "may follow, each with its probability: DINO's are "
        "random-resized-crop:jitter=0.8,grey=0.2,blur=0.5,solarise=0.2.",
        group="Views",
    )
    teacher_sees: str = option(
        "view",
        help="What the teacher sees where views have changes of colours: the view, or a clean one "
        "without them. The student always sees them.",
        choices=TEACHER_SEES,
        group="Views",
    )
    views_from: str | None = option(
        None,
        help="Target store or shards of another teacher whose view options and number of views are "
        "taken, so that one student can learn from both; default: those given here.",
        role="execution",
        group="Views",
        look=inputs.place,
    )
    view_seed: int = option(0, help="Seed of the crops.", group="Views", unit="number")
    min_scale: float = option(
        0.2,
        help="Smallest share of an image's area that a crop covers.",
        group="Views",
        unit="share",
    )
    codec: str = common.codec("float16")
    compile: bool = option(
        default=False,
        help="Compile the teacher's blocks with torch. This changes the last bits of targets.",
        group="This machine",
    )
    device: str = common.device("Where the teacher runs")
    devices: str | None = option(
        None,
        help="Start one process on each of these devices: all (GPUs that torch sees), or names "
        "such as cuda:0,cuda:2. They share the units; default: one process, on --device.",
        role="execution",
        group="This machine",
    )
    batch_size: int | Literal["auto"] = common.batch_size(
        "Images in a batch of the teacher. auto: the number of an earlier run into --out, else a "
        f"fast one that is found on the GPU, else {USUAL_BATCH}. With --devices, it is found on "
        "the first of them, so give devices that are alike."
    )
    workers: int = common.workers("Threads that decode images, in each process.")
    max_bad_fraction: float = common.max_bad_fraction(
        more=" With --part or --devices, it is the share of a part's images. The part that does "
        "the last unit checks all images."
    )
    overwrite: bool = common.overwrite("Replace targets that were made with other options.")
    init: bool = option(
        default=False,
        help="Create the store and its record, and stop. The parts of a job array then share it.",
        role="execution",
        group="Several machines",
    )
    part: str | None = option(
        None,
        help="K/N, with 0 <= K < N: do only the units K, K+N, K+2N and so on. To run some parts "
        "again, give the same N; default: all units.",
        role="execution",
        group="Several machines",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views_from is None and self.policy.name == "center" and self.view_count > 1:
            raise ConfigError(
                f"--view-policy center gives one view, --views asks for {self.views}; give 1"
            )
        if self.views_from is not None:
            self._require_no_views_of_its_own()
        self._require_one_way_to_share()
        if self.batch_size == AUTO and (self.init or self.on_dask):
            raise ConfigError(
                "--batch-size auto would be settled by this process and not by those that extract; "
                f"give a number, such as --batch-size {USUAL_BATCH}"
            )
        _ = self.own_part, parse_codec(self.codec)
        require_known_tag(self.teacher_spec)
        if self.views_from is None:
            _ = self.policy

    def _require_no_views_of_its_own(self) -> None:
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("view_policy", "view_seed", "min_scale"):
            if getattr(self, name) != fields[name]:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"{flag} {getattr(self, name)} and --views-from {self.views_from} both say how "
                    f"views are cut; leave out {flag}"
                )

    def _require_one_way_to_share(self) -> None:
        if self.devices and (self.init or self.on_dask or self.device != AUTO):
            raise ConfigError(
                f"--devices {self.devices} starts processes that do units, each on its device; "
                "leave out --device, --init, --processes and --scheduler, or leave out --devices"
            )
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
    def view_count(self) -> int:
        """How many views are extracted; with `--views-from`, see `views.settled_views`."""
        return 1 if self.views is None else self.views

    @property
    def policy(self) -> ViewPolicy:
        """How views are cut; with `--views-from`, see `views.settled_views`."""
        return ViewPolicy.parse(
            self.view_policy,
            seed=self.view_seed,
            scale=(self.min_scale, 1.0),
            teacher_sees=self.teacher_sees,
        )


run = lazily("milan_pipeline.stages.extract_targets.run:extract", stoppable=True)
dry_run = lazily("milan_pipeline.stages.extract_targets.plan:describe")
command = stage_command(
    "extract-targets",
    ExtractTargets,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline extract-targets --images images/train --out targets.zarr \\\n"
    "    --teacher ViT-B-16 --pretrained openai",
)
