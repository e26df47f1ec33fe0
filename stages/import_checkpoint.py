"""`milan-pipeline import-checkpoint`: weights under official names -> a run at step 0."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from milan_pipeline import storage
from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument, option
from milan_pipeline.core.console import bytes_text, note, say, say_nothing_to_do
from milan_pipeline.core.counting import such
from milan_pipeline.core.progress import waiting
from milan_pipeline.errors import ConfigError
from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.models.timm_names import require_model, vit_names
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.run_state import CONFIG_NAME
from milan_pipeline.stages.shared import inputs
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.own_folder import require_own_folder

if TYPE_CHECKING:
    from torch import Tensor

    from milan_pipeline.weights.import_official import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportCheckpoint:
    """Make a run of a checkpoint of MILAN's official code, to probe, export or train it further.

    CHECKPOINT is a .safetensors, .pth, .pt or .bin file with the official names. It may hold only
    the encoder, for everything that needs no decoder. Sizes come from the tensors. Positions do
    not change.
    """

    checkpoint: str = argument(look=inputs.place)
    out: str = option(help="Run folder to write.", role="execution", group="Output")
    student: str | None = option(
        None,
        help="timm name of the student; default: the model with these sizes, else ViT-B/16.",
        group="Student",
        complete=vit_names,
    )
    heads: int | None = option(
        None,
        help="Number of the encoder's attention heads; default: that of the timm model, else "
        "width / 64.",
        group="Student",
        unit="heads",
    )
    decoder_heads: int | None = option(
        None,
        help="Number of the decoder's attention heads; default: 16.",
        group="Decoder",
        unit="heads",
    )
    mask_ratio: float = option(
        0.75,
        help="Share of the patches that were masked in its training. It is only recorded.",
        group="Objective",
        unit="share",
    )
    mean: tuple[float, ...] = option(
        IMAGENET_MEAN,
        help="Mean of the pixels that it was trained on, from 0 to 1. Give it three times: for "
        "red, green and blue.",
        group="Input",
        unit="share",
    )
    std: tuple[float, ...] = option(
        IMAGENET_STD,
        help="Standard deviation of these pixels, three times.",
        group="Input",
        unit="share",
    )

    def __post_init__(self) -> None:
        if self.student is not None:
            require_model(self.student)
        for name in ("heads", "decoder_heads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {value} is below 1; give more")
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"--mask-ratio {self.mask_ratio} is not within 0 to 1; try 0.75")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(0 <= value <= 1 for value in values):
                raise ConfigError(
                    f"--{name} {' '.join(map(str, values))} is not 3 values within 0 to 1; give "
                    f"--{name} three times"
                )
        if not all(self.std):
            raise ConfigError(f"--std {' '.join(map(str, self.std))} has a 0; give more")
        if storage.local_path(self.out) is None:
            raise ConfigError(f"--out {self.out} is no local folder; give one")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return storage.local_path(self.out) or Path(self.out)


class _Plan(NamedTuple):
    state: "dict[str, Tensor]"
    architecture: "Architecture"
    record: StageRecord


def run(config: ImportCheckpoint) -> None:
    """Write the run folder, unless that is done."""
    with waiting("loading libraries"):
        from milan_pipeline.models.weight_files import export_encoder
        from milan_pipeline.provenance.run_state import write_state
        from milan_pipeline.training.checkpoints import take_snapshot, write_checkpoint
        from milan_pipeline.training.optim import make_optimiser
        from milan_pipeline.training.run_folder import run_lock
        from milan_pipeline.weights.import_official import build_imported

    plan = _plan(config)
    if _is_done(config, plan):
        say_nothing_to_do(config.out, "the checkpoint is imported")
        return
    imported = build_imported(plan.architecture, plan.state, what=config.checkpoint)
    with run_lock(config.folder):
        plan.record.begin()
        if imported.student is not None:
            fresh = make_optimiser(imported.student, weight_decay=0.0)
            snapshot = take_snapshot(imported.student, fresh)
            write_checkpoint(config.folder, 0, snapshot, keep=1)
        export_encoder(
            config.folder, imported.encoder, imported.arguments, mean=config.mean, std=config.std
        )
        write_state(config.folder, "done", step=0, total_steps=0)
        plan.record.finish({"steps": 0, "tensors": len(plan.state)})
    say(f"{config.out}: {_summary(plan)}", out=config.out, **_facts(plan))


def dry_run(config: ImportCheckpoint) -> None:
    """Say what the checkpoint contains and how large the run would be."""
    plan = _plan(config)
    if _is_done(config, plan):
        say_nothing_to_do(config.out, "the checkpoint is imported")
        return
    size = sum(4 * tensor.numel() for tensor in plan.state.values())
    say(_summary(plan), **_facts(plan))
    say_bytes_to_write(config.out, f"about {bytes_text(2 * size)} at most", 2 * size)


def _is_done(config: ImportCheckpoint, plan: _Plan) -> bool:
    """Tell whether the checkpoint was imported, and all that it became is still there."""
    from milan_pipeline.models.weight_files import ENCODER
    from milan_pipeline.training.checkpoints import has_checkpoint

    done = plan.record.previous_state() == "done"
    described = ENCODER.replace(".safetensors", ".json")
    there = {ENCODER, described} <= set(storage.list_names(config.out))
    has_student = plan.architecture.sizes.decoder is None or has_checkpoint(config.folder)
    return done and there and has_student


def _plan(config: ImportCheckpoint) -> _Plan:
    """Read the checkpoint and determine its student."""
    from milan_pipeline.models.weight_files import read_weights
    from milan_pipeline.pretraining.masking import kept_count
    from milan_pipeline.training.checkpoints import require_recorded
    from milan_pipeline.weights.import_official import choose_architecture
    from milan_pipeline.weights.official import encoder_within, require_pretrained, sizes_of

    require_own_folder(config.out, "run")
    require_recorded(config.folder)
    whole, sha256 = read_weights(config.checkpoint)
    state, prefix = encoder_within(whole, what=config.checkpoint)
    if prefix:
        left_out = such(len(whole) - len(state), "tensors", "left out")
        note(
            f"of {config.checkpoint}, those tensors are taken whose names begin with {prefix!r}; "
            f"{left_out}"
        )
    require_pretrained(state, what=config.checkpoint)
    sizes = sizes_of(state, what=config.checkpoint)
    kept_count(sizes.side**2, config.mask_ratio)  # to refuse what load_run would refuse
    architecture = choose_architecture(
        sizes, name=config.student, heads=config.heads, decoder_heads=config.decoder_heads
    )
    content = {
        **architecture.record,
        "mask_ratio": config.mask_ratio,
        "mean": list(config.mean),
        "std": list(config.std),
    }
    record = StageRecord(
        url=storage.join(config.out, CONFIG_NAME),
        stage="import-checkpoint",
        config=config,
        inputs={"checkpoint_sha256": sha256},
        content=content,
    )
    return _Plan(state, architecture, record)


def _facts(plan: _Plan) -> dict[str, Any]:
    sizes = dataclasses.asdict(plan.architecture.sizes)
    return {"tensors": len(plan.state), "student": plan.architecture.name, **sizes}


def _summary(plan: _Plan) -> str:
    sizes = plan.architecture.sizes
    decoder = (
        "an encoder alone, to probe, export or begin from"
        if sizes.decoder is None
        else f"with its decoder, {sizes.decoder.depth} blocks of width {sizes.decoder.width}"
    )
    return (
        f"{len(plan.state)} tensors, {plan.architecture.name}: {sizes.depth} blocks of width "
        f"{sizes.width}, {plan.architecture.heads} heads, {sizes.side}x{sizes.side} patches of "
        f"{sizes.patch_size} pixels, {decoder}"
    )


command = stage_command(
    "import-checkpoint",
    ImportCheckpoint,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline import-checkpoint milan-base.pth --out runs/official",
)
