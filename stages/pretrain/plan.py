"""What `pretrain` is about to do, settled before anything is written."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milan_pipeline import storage
from milan_pipeline.cli.options import fields_from
from milan_pipeline.cluster.launch import is_launched
from milan_pipeline.cluster.world import require_processes
from milan_pipeline.core.console import say, warn
from milan_pipeline.data.pair_table import OnMissing
from milan_pipeline.errors import ConfigError
from milan_pipeline.models.build import StudentSpec, build_student
from milan_pipeline.models.student import Student
from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.pretraining.feature_data import RunData, open_run_data
from milan_pipeline.pretraining.pixel_data import PixelData, open_pixel_data
from milan_pipeline.pretraining.task import PretrainingConfig
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME, checkpoints_by_step
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.teachers import (
    same_weights,
    target_folders,
    target_weights,
    warn_of_lost_lengths,
    warn_of_unused_views,
)
from milan_pipeline.stages.shared.training import (
    TrainingPlan,
    order_choice,
    stage_record,
    training_precision,
    with_frozen_choices,
)
from milan_pipeline.stages.shared.training_notes import warn_of_idle
from milan_pipeline.training.checkpoints import require_recorded
from milan_pipeline.weights.initial import initial_weights, initialise

WARMUP_SHARE = 0.1
AVERAGED = "encoder-ema"
FEW_STEPS = 200
"""A warm-up of a tenth of these is the 20 steps over which AdamW averages squared gradients."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainPlan(TrainingPlan[Pretrain]):
    """A run with nothing left open.

    Attributes:
        data: what the run is trained on.
    """

    data: RunData | PixelData

    @functools.cached_property
    def built(self) -> tuple[Student, dict[str, Any]]:
        """The student, with the weights that the run begins from, and what timm makes it of.

        Raises:
            ConfigError: it does not fit the targets.
            MissingDataError, MismatchError: there is no run at `--init`, or it does not fit.
        """
        config, data = self.config, self.data
        spec = StudentSpec.from_content(dataclasses.asdict(config))
        grid, width = data.target_shape(spec)
        student, arguments = build_student(spec, grid=grid, target_width=width, seed=config.seed)
        if config.init is not None and not checkpoints_by_step(config.folder):
            initialise(
                student,
                Path(config.init),
                decoder_heads=config.decoder_heads,
                teachers=data.identities if isinstance(data, RunData) else {},
            )
        return student, arguments

    @functools.cached_property
    def to_examples(self) -> Callable[[Iterable[dict[str, Any]]], Iterator[Batch]]:
        """How views are cut and masked.

        Raises:
            ConfigError: the ratio keeps or masks nothing.
        """
        student, _ = self.built
        return self.data.to_examples(
            student, mask_ratio=self.config.mask_ratio, masking=self.config.choices()["masking"]
        )

    @property
    def schedule_steps(self) -> int:
        """Length of the schedule."""
        return self.clock.total(self.config.epochs)

    @property
    def recipe(self) -> PretrainingConfig:
        """The recipe, and how it is computed."""
        bf16 = self.config.precision == "bf16"
        config = self.config
        weights = target_weights(config.target_weight, list(target_folders(config.targets)))
        return fields_from(
            PretrainingConfig,
            config,
            batch=self.data.order.batch,
            bf16=bf16,
            target_weights=weights,
        )

    def warn(self) -> None:
        """Say so where some of the views are never used, steps are few, or lengths are lost.

        Each epoch has one view.
        """
        epochs, views, steps = self.config.epochs, self.config.views or 0, self.schedule_steps
        if steps < FEW_STEPS:
            warn(
                f"--epochs {epochs} with --batch-size {self.order.batch} make {steps} steps, and "
                f"in fewer than {FEW_STEPS} a student learns little; give more --epochs, "
                "or a smaller --batch-size"
            )
        if self.config.choices()["decoder"] == "linear":
            sizes = ("decoder_width", "decoder_depth", "decoder_heads")
            warn_of_idle(sizes, self.config, "with --decoder linear")
        if isinstance(self.data, PixelData):
            warn_of_idle(["on_missing"], self.config, "with --target pixels, which have no targets")
        if isinstance(self.data, RunData) and self.config.target_norm == "none":
            warn_of_lost_lengths({t.folder: t.codec.spec.name for t in self.data.teachers})
        if isinstance(self.data, RunData):
            warn_of_unused_views(self.data.packed, views)
        if epochs < views:
            warn(
                f"--epochs {epochs} leaves {views - epochs} of the {views} views unused, since an "
                "epoch has one of them; give more epochs to use all"
            )

    def describe(self, model: nn.Module, processes: int) -> None:
        """See `TrainingPlan.describe`."""
        _ = self.to_examples  # to refuse what the run would refuse
        super().describe(model, processes)

    def describe_data(self) -> None:
        """Say how many pairs there are."""
        count = int(self.data.samples.counts(0).sum())
        names = [name for name in self.data.targets() if name]
        teachers = f", teachers: {' and '.join(names)}" if len(names) > 1 else ""
        say(
            f"pairs: {count} a view, views: {self.config.views or 'a new one each epoch'}, "
            f"left out: {self.data.missing}{teachers}",
            pairs=count, views=self.config.views, left_out=self.data.missing,
        )  # fmt: skip

    @property
    def exports(self) -> tuple[str, ...]:
        """The encoder and, where there is one, its moving average."""
        return ("encoder",) if self.config.ema_decay is None else ("encoder", AVERAGED)

    def exported_bytes(self, model: nn.Module) -> dict[str, int]:
        """Return the size of the encoder and, where there is one, of its moving average."""
        del model
        parameters = sum(parameter.numel() for parameter in self.built[0].encoder.parameters())
        return {"encoder": 4 * len(self.exports) * parameters}


def plan(config: Pretrain, device: torch.device) -> PretrainPlan:
    """Join the pairs and settle what is open; nothing is written, and no student built yet.

    Raises:
        ConfigError: options do not fit each other or the data.
        MissingDataError, MismatchError: images, targets and `--init` do not belong together, or
            `--out` has checkpoints of no known run.
    """
    require_processes(fsdp=config.fsdp, started=is_launched() or config.processes is not None)
    require_recorded(config.folder)
    config, init = _with_init(config)
    config, data = _settled(config, device)
    # `config.json`, with what must not change between parts of the run.
    inputs = dict(data.inputs)
    if config.init is not None:
        inputs["init"] = init or initial_weights(Path(config.init)).sha256
    record = stage_record("pretrain", config, **inputs)
    return PretrainPlan(
        config=config, train=data.samples, order=data.order, record=record, data=data
    )


def _settled(config: Pretrain, device: torch.device) -> tuple[Pretrain, RunData | PixelData]:
    """Join the pairs; fill in what was left to the data, the machine or an earlier run."""
    frozen = ["views", "batch_size", "lanes", "precision", "warmup_epochs"]
    if _draws_by_recorded_prior(config):
        frozen.append("prior_from")
    config = with_frozen_choices("pretrain", config, *frozen)
    data = _open_data(config)
    warmup = config.warmup_epochs
    chosen: dict[str, Any] = dict(config.choices())
    if isinstance(data, RunData) and len(data.teachers) > 1:
        names, recorded = [each.name for each in data.teachers], _recorded(config)
        chosen["target_weight"] = same_weights(
            config.target_weight, recorded.get("target_weight", ()), names
        )
        if chosen["masking"] == "semantic":
            chosen["prior_from"] = data.prior_from
    settled = dataclasses.replace(
        config,
        **chosen,
        views=config.views if isinstance(data, PixelData) else data.samples.cycle,
        batch_size=data.order.batch,
        lanes=data.order.lanes,
        precision=training_precision(config.precision, device),
        warmup_epochs=WARMUP_SHARE * config.epochs if warmup is None else warmup,
    )
    require_residual(settled, asked=config.precision)
    return settled, data


def _with_init(config: Pretrain) -> tuple[Pretrain, str | None]:
    """Fill in what an earlier part of the run began from, unless it is given.

    Returns:
        The options; and the hash of these weights as recorded, where there is a checkpoint, so that
        they need not be there any more.
    """
    previous = read_record(storage.join(config.out, CONFIG_NAME))
    if config.init is not None or previous is None or "init" not in previous["inputs"]:
        return config, None
    known = previous["inputs"]["init"] if checkpoints_by_step(config.folder) else None
    return dataclasses.replace(config, init=previous["config"]["init"]), known


def _draws_by_recorded_prior(config: Pretrain) -> bool:
    """Tell whether the teacher whose prior an earlier part of the run drew masks by is here, too.

    With another masking or other teachers it is another run, which its record says.
    """
    names = target_folders(config.targets)
    known = len(names) > 1 and _recorded(config).get("prior_from") in names
    return known and config.choices()["masking"] == "semantic"


def _recorded(config: Pretrain) -> Mapping[str, Any]:
    """Return the options of an earlier part of the run; none if there is no record."""
    previous = read_record(storage.join(config.out, CONFIG_NAME))
    return previous["content"] if previous else {}


def require_residual(config: Pretrain, *, asked: str) -> None:
    """Refuse tokens in bfloat16 where the arithmetic is in float32.

    Args:
        config: with its precision settled.
        asked: the precision that was asked for.

    Raises:
        ConfigError: it is so.
    """
    if config.residual_dtype == "bf16" and config.precision != "bf16":
        meaning = "" if asked == config.precision else f", which is {config.precision} here"
        raise ConfigError(
            f"--residual-dtype bf16 does not fit --precision {asked}{meaning}; give --precision "
            "bf16, or leave --residual-dtype out"
        )


def _open_data(config: Pretrain) -> RunData | PixelData:
    images, views, order = config.images, config.views, order_choice(config)
    if not config.targets:
        return open_pixel_data(images, views=views, min_scale=config.min_scale, order=order)
    on_missing: OnMissing = "skip" if config.on_missing == "skip" else "error"
    return open_run_data(
        images,
        target_folders(config.targets),
        views=views,
        on_missing=on_missing,
        order=order,
        prior_from=config.prior_from,
        phi_s=config.choices()["target_norm"] == "phi-s",
        resample=config.resample_targets,
    )
