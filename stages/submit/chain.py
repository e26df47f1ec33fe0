"""Plan what `submit` does: which jobs a recipe makes, with which options, and what is left of each.

What a job would refuse is refused here, before it is submitted, if its inputs are there already.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import click
from torch.distributed.run import get_args_parser

from milan_pipeline.cli.recipes import read_sections, read_yaml
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.core.console import note
from milan_pipeline.core.devices import pick_device
from milan_pipeline.data.order import default_lanes, lanes_of
from milan_pipeline.errors import ConfigError
from milan_pipeline.provenance.record import read_record
from milan_pipeline.report.folder_status import is_finished
from milan_pipeline.stages.extract_targets import command as extract_targets
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.plan import WorkList, spec_of, survey
from milan_pipeline.stages.extract_targets.views import settled_views
from milan_pipeline.stages.finetune import command as finetune
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.finetune.plan import open_class_tables
from milan_pipeline.stages.finetune.plan import plan as plan_finetune
from milan_pipeline.stages.pack_targets import command as pack_targets
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.stages.pack_targets.run import is_done as shards_are_written
from milan_pipeline.stages.pretrain import command as pretrain
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.plan import plan as plan_pretrain
from milan_pipeline.stages.shared.training_options import TrainingOptions
from milan_pipeline.stages.submit.command import Submit
from milan_pipeline.targets.layout import holds_store
from milan_pipeline.targets.store_record import record_url

ConfigT = TypeVar("ConfigT")
TrainingT = TypeVar("TrainingT", bound=TrainingOptions)
NEEDED = ("extract-targets", "pretrain")
WITH_JOBS = (*NEEDED, "pack-targets", "finetune")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A job of the chain.

    Attributes:
        name: one of `JOBS`.
        options: words of the stage's command line, without the recipe.
        on_gpu: whether it needs GPUs.
        run: the run folder that it writes, where it trains.
        output: the store or the shards that it writes, where it does not train.
        parts: the number of an array's tasks; None if the job is no array.
        tasks: those of them that have something left to do.
    """

    name: str
    options: tuple[str, ...]
    on_gpu: bool
    run: str | None = None
    output: str | None = None
    parts: int | None = None
    tasks: tuple[int, ...] | None = None


def jobs_left(config: Submit) -> list[Job]:
    """List the jobs that are not done, in the order in which they wait for each other.

    All jobs after one that is left are left, too: their input will change, or is not there yet.

    Raises:
        ConfigError: the recipe lacks a stage, has one that changes the targets, or options do not
            fit.
        MismatchError: outputs of other options are there.
    """
    _require_torchrun()
    sections = read_sections(config.recipe_file)
    for stage in NEEDED:
        if stage not in sections:
            raise ConfigError(
                f"recipe {config.recipe} has no section {stage!r}; give one that has, for example "
                "imagenet1k-vit-b16"
            )
    _require_jobs_for(config, sections)
    links = list(_links(config, sections))
    for number, link in enumerate(links):
        if link.is_left():
            return [job for link in links[number:] for job in link.jobs()]
    return []


def _require_jobs_for(config: Submit, sections: dict[str, Any]) -> None:
    """Name the sections of which no job is made; the other jobs do not need most of them.

    Raises:
        ConfigError: one of them makes the targets that a student is to learn.
    """
    if "transcode" in sections:
        raise ConfigError(
            f"recipe {config.recipe} has the section 'transcode', of which no job is made, so that "
            "the student would learn other targets; put its codec into the section "
            "extract-targets, or take it out"
        )
    left_out = [stage for stage in sections if stage not in WITH_JOBS]
    if left_out:
        note(f"no job is made of the recipe's {', '.join(left_out)}; run it by hand afterwards")


def _require_torchrun() -> None:
    """Refuse a torchrun that does not know the options that the scripts give it: one before 2.12.

    Raises:
        ConfigError: it is too old.
    """
    known = get_args_parser().format_help()
    for flag in ("--signals-to-handle", "--shutdown-timeout"):
        if flag not in known:
            raise ConfigError(
                f"torchrun here has no {flag}, by which jobs stop in order; install torch 2.12"
            )


class Link(NamedTuple):
    """A stage of the chain.

    Attributes:
        jobs: lists its jobs.
        is_left: tells whether its output is not done, or the recipe asks for more than is there;
            refuses what does not fit to it.
    """

    jobs: Callable[[], list[Job]]
    is_left: Callable[[], bool]


def _links(config: Submit, sections: dict[str, Any]) -> Iterator[Link]:
    """Yield the stages in their order."""
    yield _extraction(config)
    yield _packing(config)
    images, run = config.absolute(config.images), str(config.folder / "run")
    yield _training(
        config,
        kind=Pretrain,
        command=pretrain.command,
        run=run,
        words=("--images", images, "--targets", config.shards),
        plan=plan_pretrain,
    )
    if "finetune" not in sections:
        if config.val is not None:
            note(f"--val is not used: the recipe {config.recipe} has no section finetune")
        return
    if config.val is None:
        note("no --val: nothing is fine-tuned")
        return
    out = str(config.folder / "finetune")
    words = ("--encoder", run, "--train", images, "--val", config.absolute(config.val))
    yield _training(
        config,
        kind=Finetune,
        command=finetune.command,
        run=out,
        words=words,
        plan=plan_finetune,
    )
    # Otherwise its job would find out after days that there are no labels.
    open_class_tables(_configured(config, Finetune, finetune.command, (*words, "--out", out)))


def _extraction(config: Submit) -> Link:
    words = ("--images", config.absolute(config.images), "--out", config.store)
    # As its first job does: this must not depend on the machine that a job runs on.
    wanted = settled_views(
        _configured(config, ExtractTargets, extract_targets.command, (*words, "--init"))
    )
    if wanted.precision == "auto" and not holds_store(wanted.out):
        raise ConfigError(
            f"recipe {config.recipe} leaves the teacher's precision to the machine, and many "
            "machines may extract; put precision: bf16 or fp32 into its section extract-targets"
        )

    def work() -> WorkList:
        return survey(wanted, spec_of(wanted))[1]

    def jobs() -> list[Job]:
        found = work()
        parts = min(len(found.units), config.parts)
        left = {number % parts for number, unit in enumerate(found.units) if unit in found.left}
        fits = parse_codec(wanted.codec).needs_fit
        return [
            Job(name="init", options=words, on_gpu=fits, output=config.store),
            # Where only the record is not done yet, any task completes it.
            Job(
                name="extract",
                options=words,
                on_gpu=True,
                output=config.store,
                parts=parts,
                tasks=tuple(sorted(left)) or (0,),
            ),
        ]

    def is_left() -> bool:
        # As `is_finished` does, which would read all marks once more.
        return bool(work().left) or not _is_recorded(record_url(wanted.out, "extract-targets"))

    return Link(jobs, is_left)


def _is_recorded(url: str) -> bool:
    """Tell whether a record says that its stage is done."""
    record = read_record(url)
    return record is not None and record["state"] == "done"


def _packing(config: Submit) -> Link:
    words = ("--targets", config.store, "--out", config.shards)
    wanted = _configured(config, PackTargets, pack_targets.command, words)
    return Link(
        lambda: [Job(name="pack", options=words, on_gpu=False, output=config.shards)],
        lambda: not (shards_are_written(wanted) and is_finished(config.shards)),
    )


def _training(
    config: Submit,
    *,
    kind: type[TrainingT],
    command: click.Command,
    run: str,
    words: tuple[str, ...],
    plan: Callable[..., Any],
) -> Link:
    words, processes = (*words, "--out", run), config.nodes * config.processes
    if not sets_workers(config, str(command.name)):
        words = (*words, "--workers", "auto")
    wanted = _configured(config, kind, command, words)
    if wanted.processes is not None:
        raise ConfigError(
            f"recipe {config.recipe} has processes: {wanted.processes} for {command.name}, which "
            "torchrun starts in a job; take it out, and give --processes-per-node"
        )
    wanted = dataclasses.replace(wanted, processes=processes)
    if wanted.batch_size is not None:  # else the data settle it
        lanes_of(0, processes, range(wanted.lanes or default_lanes(wanted.batch_size, processes)))

    def is_left() -> bool:
        planned = plan(wanted, pick_device("auto"))
        lanes_of(0, processes, range(planned.config.lanes))
        return not (planned.is_done and is_finished(run))

    job = Job(name=str(command.name), options=words, on_gpu=True, run=run)
    return Link(lambda: [job], is_left)


def sets_workers(config: Submit, stage: str) -> bool:
    """Tell whether a recipe says how many loader processes a training stage has."""
    document = read_yaml(config.recipe_file)
    return "workers" in document or "workers" in (document.get(stage) or {})


def _configured(
    config: Submit, kind: type[ConfigT], command: click.Command, words: tuple[str, ...]
) -> ConfigT:
    """Make a stage's configuration as its command line does of the recipe."""
    words = ("--config", str(config.recipe_file), *words)
    parameters = command.make_context(str(command.name), list(words)).params
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in parameters.items() if name in names})
