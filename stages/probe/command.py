"""`milan-pipeline probe`: a frozen encoder's k-NN and linear accuracy on labelled shards."""

import dataclasses

from milan_pipeline import storage
from milan_pipeline.cli.commands import lazily, stage_command
from milan_pipeline.cli.options import AUTO, require_least
from milan_pipeline.core.cores import own_cores
from milan_pipeline.encoders.names import is_named
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.probe.options import (
    OF_ATTENTIVE,
    OF_IMAGES,
    OF_PATCHES,
    AttentiveOptions,
    EncodingOptions,
    FeatureOptions,
    LinearOptions,
    PatchOptions,
)
from milan_pipeline.stages.shared import inputs

KS, TEMPERATURE = (10, 20, 100, 200), 0.07
PATCH_KS, PATCH_TEMPERATURE = (30,), 0.02
"""Of open-hummingbird-eval, whose method --dense follows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe(EncodingOptions, PatchOptions, AttentiveOptions, LinearOptions, FeatureOptions):
    """Score a frozen encoder: accuracy of k-NN and of linear classifiers on its features.

    Both sets of shards need class numbers (.cls). The command prints a table and writes scores.json
    and answers.npy, which has the class and the answers for each test image; images.txt names
    these. Features are computed once and kept.

    With --dense, patches are scored instead of images. Both sets need masks, as for segment. Each
    patch takes its class from the labelled patches that are most like it, and the command writes
    the mIoU and its protocol.
    """

    def __post_init__(self) -> None:
        require_least(self)
        for name in ("k", "linear", "sweep_lr", "attentive_lr"):
            values = getattr(self, name)
            if (not values and name != "k") or len(set(values)) < len(values):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(
                    f"{flag} {list(values)} is not one or more different values; give each once"
                )
        for name in ("linear_lr", "sweep_lr", "attentive_lr"):
            value = getattr(self, name)
            if 0 in (value if isinstance(value, tuple) else (value,)):
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} 0 learns nothing; give a rate above 0")
        if self.crop_pct is not None and not 0.01 <= self.crop_pct <= 1:
            raise ConfigError(f"--crop-pct {self.crop_pct} is not within 0.01 to 1; try 0.875")
        if self.temperature is not None and self.temperature <= 0:
            usual = PATCH_TEMPERATURE if self.dense else TEMPERATURE
            raise ConfigError(f"--temperature {self.temperature} must be above 0; give {usual}")
        self._require_fitting()
        if "none" in self.linear and len(self.linear) > 1:
            raise ConfigError("--linear none is given with others; give it alone or leave it out")
        if self.linear_warmup_epochs >= self.linear_epochs:
            raise ConfigError(
                f"--linear-warmup-epochs {self.linear_warmup_epochs:g} leaves nothing of "
                f"--linear-epochs {self.linear_epochs}; give fewer"
            )
        if self.out is None and (is_named(self.encoder) or self.encoder.endswith(".safetensors")):
            raise ConfigError(f"--encoder {self.encoder!r} is no run folder; give --out FOLDER")

    @property
    def idle_options(self) -> tuple[str, ...]:
        """The options that change nothing; scores do not depend on them."""
        return tuple(self._reasons)

    @property
    def _reasons(self) -> dict[str, str]:
        """Why options change nothing, by their name."""
        if self.dense:
            return dict.fromkeys((*OF_IMAGES, "attentive", *OF_ATTENTIVE), "with --dense")
        idle = dict.fromkeys(("dense", *OF_PATCHES), "without --dense")
        return idle if self.attentive else idle | dict.fromkeys(OF_ATTENTIVE, "without --attentive")

    def _require_fitting(self) -> None:
        """Refuse options that would change nothing with others, or without them."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, why in self._reasons.items():
            if getattr(self, name) != defaults[name]:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} changes nothing {why}; leave it out")
        if self.dense and self.classes is None:
            raise ConfigError("--dense needs the number of classes in the masks; give --classes")
        if self.dense and len(self.k) > 1:
            raise ConfigError(f"--k {list(self.k)} with --dense is not one number; give it once")

    @property
    def ks(self) -> tuple[int, ...]:
        """How many neighbours vote, for each score of them."""
        return self.k or (PATCH_KS if self.dense else KS)

    @property
    def sharpness(self) -> float:
        """The temperature of the neighbours' votes."""
        if self.temperature is not None:
            return self.temperature
        return PATCH_TEMPERATURE if self.dense else TEMPERATURE

    @property
    def decoders(self) -> int:
        """How many threads decode."""
        return own_cores() if self.workers == AUTO else self.workers

    @property
    def folder(self) -> str:
        """Where the scores go."""
        return self.out or storage.join(self.encoder, "probe-dense" if self.dense else "probe")

    @property
    def features_folder(self) -> str:
        """Where the features go."""
        return self.features or storage.join(self.folder, "features")


score_images = lazily("milan_pipeline.stages.probe.run:run")
describe_images = lazily("milan_pipeline.stages.probe.run:dry_run")
score_patches = lazily("milan_pipeline.stages.probe.patches:run")
describe_patches = lazily("milan_pipeline.stages.probe.patches:dry_run")


def look_at_shards(config: Probe) -> None:
    """Refuse other folders than those of shards, which only --dense takes."""
    for folder in () if config.dense else (config.train, config.val):
        inputs.image_shards(folder)


def run(config: Probe) -> None:
    """Score the images, or their patches."""
    look_at_shards(config)
    (score_patches if config.dense else score_images)(config)


def dry_run(config: Probe) -> None:
    """Say what `run` would do."""
    look_at_shards(config)
    (describe_patches if config.dense else describe_images)(config)


command = stage_command(
    "probe",
    Probe,
    run=run,
    dry_run=dry_run,
    example="milan-pipeline probe --encoder runs/first --train images/train --val images/val",
)
