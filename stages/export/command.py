"""`milan-pipeline export`: a run's weights in formats that other programs load."""

import dataclasses
from pathlib import Path
from typing import Literal

from milan_pipeline import storage
from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import argument, option, require_least
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the weights of RUN for other programs, with a model card.

    RUN is a folder of pretrain, import-checkpoint, finetune or segment; of the last two, the best
    weights are written. timm, huggingface and onnx: encoders and classifiers. onnx: segmenters,
    too; the file is run by onnxruntime and compared with torch. official: encoder and prompting
    decoder for MILAN's own code. safetensors: any of them, as --encoder takes it.
    """

    run: str = argument(look=inputs.place)
    form: str = option(
        help="The program that will load the weights.",
        choices=("timm", "official", "huggingface", "onnx", "safetensors"),
        role="content",
        group="Output",
    )
    out: str = option(help="Folder to write.", role="execution", group="Output")
    ema: bool = option(
        default=False,
        help="Export the moving average of the encoder's weights (--ema-decay of pretrain).",
        group="Input",
    )
    threads: int | Literal["auto"] = common.threads()
    allow_unfinished: bool = common.allow_unfinished("Export a run that is not finished.")
    overwrite: bool = common.overwrite("Replace an export that was made with other options.")

    def __post_init__(self) -> None:
        require_least(self)
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


run = lazily("milan_pipeline.stages.export.run:write")
dry_run = lazily("milan_pipeline.stages.export.run:describe")

command = stage_command(
    "export",
    Export,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline export runs/first --form timm --out exports/first",
)
