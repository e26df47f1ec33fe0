"""`milan-pipeline codecs`: measure what each codec does to the user's own targets."""

import dataclasses

from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import count, option, require_least
from milan_pipeline.errors import ConfigError
from stages.shared import common_options as common


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureCodecs:
    """Measure codecs on the targets of a store: bytes, cosines, colours, speed, the bound.

    Codecs are fitted to the images that extraction would fit them to, and measured on others.
    Prints a table and draws a picture; the store is not changed.

    Columns: bytes a token and a sample; how many times smaller than float16 a sample is, and target
    shards and stores with all their files; the cosine between a token and its decoded code (mean,
    first percentile, mean of class tokens); the agreement of PCA-colour pictures (1 - mean
    difference of colours from 0 to 1); bits a coded component above the Gaussian rate-distortion
    bound; images/s.
    """

    targets: str = option(
        help="Target store that extract-targets wrote.", group="Input", role="execution"
    )
    codec: tuple[str, ...] = option(
        (),
        help="Codec to measure; repeat for more; default: all levels and a range of ratios.",
        group="Targets",
    )
    samples: int = count(1024, "images", group="Input", help="Number of images to measure on.")
    synthetic: float | None = option(
        None,
        help="Also measure Gaussian tokens of the same shape, whose k-th component has the "
        "variance k^-POWER; with 1, the spectrum falls slowly; default: no such tokens.",
        least=0,
        most=10,
        group="Input",
        unit="power",
    )
    plot: str = option(
        "codecs.png", help="Where the picture (PNG) is written.", group="Output", role="execution"
    )
    device: str = common.device("Where targets are encoded and decoded")
    allow_unfinished: bool = common.allow_unfinished(
        "Measure a store whose extraction has not ended."
    )

    def __post_init__(self) -> None:
        require_least(self)
        if not self.plot.lower().endswith(".png"):
            raise ConfigError(f"--plot {self.plot} is not a PNG; use a name that ends in .png")


run = lazily("stages.codecs.report:measure")
command = stage_command(
    "codecs",
    MeasureCodecs,
    run=run,
    dry_run=None,
    example="milan-pipeline codecs --targets targets.zarr --codec int8 --codec tiny",
)
