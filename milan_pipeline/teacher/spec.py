"""Which teacher, and which targets it is to give; known before weights are loaded."""

import dataclasses
from pathlib import Path

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import Statistics, parsed_statistics

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OWN = "own"
NORM_HELP = (
    "Mean and std of the teacher's pixels. own: those that its weights were trained with. "
    "imagenet: as in MILAN. openai: those of OpenAI's CLIP. Or numbers for pixels from 0 to 1: "
    "0.5/0.5, or 0.48,0.46,0.41/0.27,0.26,0.28."
)
SPACES = ("auto", "projected", "hidden")
PRIORS = ("auto", "cls", "pool", "rollout", "uniform")
TIMM, RUN, LOCAL, HUB = "timm:", "run:", "local-dir:", "hf-hub:"
"""How names of teachers begin that are not open_clip's names of architectures."""
IN_FOLDERS = (LOCAL, TIMM + LOCAL, RUN)
WITH_WEIGHTS = (*IN_FOLDERS, HUB, TIMM + HUB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """An image encoder by name.

    Attributes:
        name: an open_clip model (`ViT-B-16`), `hf-hub:ORG/REPO` or `local-dir:PATH`; a model of
            timm, `timm:NAME` or `timm:NAME.TAG` (also `timm:local-dir:PATH` and
            `timm:hf-hub:ORG/REPO`); or `run:FOLDER`, the student of a pretraining run.
        pretrained: weights tag of open_clip (`openai`) or checkpoint file; None for names that come
            with their weights.
        precision: type of weights and activations, one of `PRECISIONS`; "auto" is what
            `description.settle_precision` chooses for the device.
        norm: mean and std of the input pixels: the tower's "own", "imagenet" as in MILAN's official
            code, or what else `statistics.parsed_statistics` reads.
        grid: tokens along each side; sets the input size. None for the tower's own grid.
        layers: targets are the mean of this many last layers, each through the final norm.
        space: "projected" into the space shared with text, or "hidden", just before that; "auto" is
            "projected" where the tower has that space.
        prior: the source of the mask prior; "auto" is what `prior.settle_prior` chooses.
        compile: whether torch compiles the attention blocks: slower to start, faster on a GPU. It
            changes last bits of targets.

    Raises:
        ConfigError: a value is not allowed.
    """

    name: str
    pretrained: str | None = None
    precision: str = "fp32"
    norm: str = OWN
    grid: int | None = None
    layers: int = 1
    space: str = "auto"
    prior: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        for option, value, choices in (
            ("--precision", self.precision, PRECISIONS),
            ("--space", self.space, SPACES),
            ("--prior", self.prior, PRIORS),
        ):
            if value not in choices:
                raise ConfigError(
                    f"{option} {value!r} is unknown; choose one of {', '.join(choices)}"
                )
        for option, number in (("--grid", self.grid), ("--layers", self.layers)):
            if number is not None and number < 1:
                raise ConfigError(f"{option} {number} is below 1; give 1 or more")
        if self.pretrained is not None and self.name.startswith(WITH_WEIGHTS):
            library = "timm" if self.name.startswith(TIMM) else "open_clip"
            named = f"{library}'s name of the architecture"
            other = f"{RUN}FILE.safetensors" if self.name.startswith(RUN) else named
            raise ConfigError(
                f"--pretrained {self.pretrained!r} has no effect on --teacher {self.name!r}, "
                f"which comes with its weights; leave it out, or give {other}"
            )
        _ = self.statistics

    @property
    def statistics(self) -> Statistics | None:
        """The mean and std that were asked for; None for the tower's own.

        Raises:
            ConfigError: they are no such numbers.
        """
        if self.norm == OWN:
            return None
        try:
            return parsed_statistics(self.norm)
        except ValueError as error:
            raise ConfigError(
                f"--teacher-norm {self.norm!r} {error}; give own, imagenet, openai, or numbers "
                "such as 0.5/0.5 or 0.48,0.46,0.41/0.27,0.26,0.28"
            ) from error

    @property
    def place(self) -> tuple[str, str] | None:
        """How the name begins and the path that follows, where the weights lie at a path."""
        for kind in IN_FOLDERS:
            if self.name.startswith(kind):
                return kind, self.name.removeprefix(kind)
        return None

    @property
    def names_in_identity(self) -> dict[str, str | None]:
        """The identity's names of the tower and of its weights, without paths."""
        return {"name": self.name_in_identity, "pretrained": self.tag_in_identity}

    @property
    def name_in_identity(self) -> str:
        """The identity's name of the tower; it does not contain the path of a local folder."""
        return self.name if self.place is None else self.place[0].removesuffix(":")

    @property
    def tag_in_identity(self) -> str | None:
        """The identity's name of the weights; it does not contain the path of a file."""
        is_file = self.pretrained is not None and Path(self.pretrained).is_file()
        return "file" if is_file else self.pretrained
