"""`milan-pipeline export`: a run's weights in formats that other programs load."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from milan_pipeline import storage
from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument, option
from milan_pipeline.core.console import bytes_text, say, say_nothing_to_do
from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.provenance.record import StageRecord, read_record
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.training.state import CONFIG_NAME, STATE_NAME

if TYPE_CHECKING:
    from milan_pipeline.weights.run_weights import RunWeights

RECORD_NAME = "export.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the weights of RUN for timm, for MILAN's official code or for transformers.

    timm: model.safetensors and config.json for timm.create_model("local-dir:FOLDER",
    pretrained=True). official: checkpoint.pth with encoder and prompting decoder, under the
    official names. huggingface: the encoder for ViTModel.from_pretrained(FOLDER,
    add_pooling_layer=False).
    """

    run: str = argument()
    form: str = option(
        help="The program that will load the weights.",
        choices=("timm", "official", "huggingface"),
        role="content",
        group="Output",
    )
    out: str = option(help="Folder to write.", role="execution", group="Output")
    ema: bool = option(
        default=False,
        help="Export the moving average of the encoder's weights (--ema-decay of pretrain).",
        group="Input",
    )
    allow_unfinished: bool = common.allow_unfinished("Export a run that is not finished.")
    overwrite: bool = common.overwrite("Replace an export that was made with other options.")

    def __post_init__(self) -> None:
        if self.ema and self.form == "official":
            raise ConfigError(
                "--ema does not work with --form official: only the encoder has an average; take "
                "--form timm or huggingface"
            )
        if storage.local_path(self.run) is None:
            raise ConfigError(f"the run {self.run} is no local folder; give one")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return storage.local_path(self.run) or Path(self.run)


def run(config: Export) -> None:
    """Write the files of the form and their hashes, unless that is done."""
    from milan_pipeline.storage.checksums import put_with_sums

    weights = _weights(config)
    record = _record(config, weights)
    files = _files(config, weights)
    if _is_done(config, record, files):
        return
    _require_no_others(config, record, files)
    record.begin()
    put_with_sums(config.out, files)
    record.finish({"tensors": len(weights.state), "bytes": sum(map(len, files.values()))})
    say(f"{config.out}: {', '.join(files)}", out=config.out, files=list(files))


def dry_run(config: Export) -> None:
    """Say which files would be written and what they would take."""
    weights = _weights(config)
    record = _record(config, weights)
    files = _files(config, weights)
    if _is_done(config, record, files):
        return
    _require_no_others(config, record, files)
    say(f"files to write: {', '.join(files)}", files=list(files))
    size = sum(map(len, files.values()))
    say_bytes_to_write(config.out, bytes_text(size), size)


def _weights(config: Export) -> "RunWeights":
    """Read the weights that the form needs."""
    from milan_pipeline.weights.run_weights import (
        encoder_weights,
        require_finished,
        require_student,
        student_weights,
    )

    require_finished(
        config.folder,
        allow_unfinished=config.allow_unfinished,
        remedy="finish it or --allow-unfinished",
    )
    require_student(config.folder)
    if config.form != "official":
        return encoder_weights(config.folder, ema=config.ema)
    record = read_record(storage.join(config.run, CONFIG_NAME)) or {"content": {}}
    found, decoder = student_weights(config.folder), record["content"].get("decoder", "prompting")
    if found is None:
        raise MissingDataError(
            f"{config.run} has no checkpoint with a decoder; export its encoder with --form timm"
        )
    if decoder != "prompting":
        raise MismatchError(
            f"{config.run} has the {decoder!r} decoder, and the official form needs the prompting "
            "decoder; export its encoder with --form timm"
        )
    return found


def _files(config: Export, weights: "RunWeights") -> dict[str, bytes]:
    from milan_pipeline.weights.export import huggingface_files, official_files, timm_files
    from milan_pipeline.weights.run_weights import encoder_description, recorded_encoder

    if config.form == "official":
        return official_files(weights.state, recorded_encoder(config.folder, weights.state))
    lay_out = timm_files if config.form == "timm" else huggingface_files
    return lay_out(weights.state, encoder_description(config.folder))


def _record(config: Export, weights: "RunWeights") -> StageRecord:
    from milan_pipeline.weights.run_weights import encoder_description

    inputs = {"weights_sha256": weights.sha256}
    if config.form != "official":
        inputs["encoder_sha256"] = content_hash(encoder_description(config.folder))
    return StageRecord(
        url=storage.join(config.out, RECORD_NAME), stage="export", config=config, inputs=inputs
    )


def _is_done(config: Export, record: StageRecord, files: dict[str, bytes]) -> bool:
    done = not config.overwrite and record.previous_state() == "done"
    done = done and files.keys() <= set(storage.list_names(config.out))
    if done:
        say_nothing_to_do(config.out, f"the {config.form} form is there")
    return done


def _require_no_others(config: Export, record: StageRecord, files: dict[str, bytes]) -> None:
    """Refuse to overwrite files that export did not write, such as a run's `config.json`."""
    names = [*(() if storage.exists(record.url) else files), STATE_NAME]
    other = [name for name in names if storage.exists(storage.join(config.out, name))]
    if other:
        raise MismatchError(
            f"--out {config.out} holds a {other[0]} that export did not write; give another folder"
        )


command = stage_command(
    "export",
    Export,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline export runs/first --form timm --out exports/first",
)
