"""`milan-pipeline codecs`: measure what each codec does to the user's own targets."""

import dataclasses
from typing import Literal

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import argument, count, option, require_least
from milan_pipeline.codecs.registry import codec_names, parse_codec
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import common_options as common
from milan_pipeline.stages.shared import inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureCodecs:
    """Measure on the targets of STORE how small each codec is and how much it keeps.

    Codecs are fitted to the same images as in extraction, and measured on others. The command
    prints a table and draws a picture. It does not change the store.

    Columns: bytes of a token and of a sample. Times smaller than float16, for a sample, for target
    shards and for a store. Cosine between a token and its decoded code: mean, first percentile and
    mean of class tokens. Agreement of PCA colours, 1 for equal pictures. Bits of a component above
    the Gaussian rate-distortion bound. Images/s.
    """

    store: str = argument(formerly="targets", look=inputs.target_store)
    codec: tuple[str, ...] = option(
        (),
        help="Codec to measure; may be repeated; default: all levels and a range of ratios.",
        group="Targets",
        complete=codec_names,
    )
    samples: int = count(1024, "images", group="Input", help="Number of images to measure on.")
    synthetic: float | None = option(
        None,
        help="Also measure Gaussian tokens of the same shape. Their k-th component has the "
        "variance k^-POWER; default: no such tokens.",
        least=0,
        most=10,
        group="Input",
        unit="power",
    )
    plot: str = option(
        "codecs.png", help="File for the picture (PNG).", group="Output", role="execution"
    )
    device: str = common.device("Where targets are encoded and decoded")
    threads: int | Literal["auto"] = common.threads()
    allow_unfinished: bool = common.allow_unfinished(
        "Measure a store whose extraction is not finished."
    )

    def __post_init__(self) -> None:
        require_least(self)
        for codec in self.codec:
            parse_codec(codec)
        if not self.plot.lower().endswith(".png"):
            raise ConfigError(f"--plot {self.plot} is not a PNG; use a name that ends in .png")


run = lazily("milan_pipeline.stages.codecs.report:measure")
command = stage_command(
    "codecs",
    MeasureCodecs,
    run=run,
    dry_run=None,
    example="milan-pipeline codecs targets.zarr --codec int8 --codec tiny",
)
