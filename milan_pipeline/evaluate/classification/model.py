"""A classifier: an encoder, a pooling of its tokens, and a linear head; its files.

A run folder keeps the classifier in files from which timm can build it again.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import timm
import torch
from torch import Tensor, nn

from milan_pipeline.core.schema import Positive
from milan_pipeline.encoders.backbone import Backbone
from milan_pipeline.errors import ConfigError, MismatchError, reason_of
from milan_pipeline.evaluate.evaluation_view import INTERPOLATION
from milan_pipeline.models.drop_path import share_graphs
from milan_pipeline.models.vit import CANNOT_BUILD
from milan_pipeline.models.weight_files import (
    Arguments,
    Deviations,
    Means,
    plain_tensors,
    put_weights,
    read_document,
)
from milan_pipeline.storage.checksums import read_checked

HEAD_STD = 0.02
POOLS = {"mean": "avg", "cls": "token"}
# Arguments by which timm's families normalise the mean of the tokens, not the tokens.
NORMS_OF_MEAN = {"fc_norm": True, "use_fc_norm": True, "use_post_transformer_norm": False}
DRAWN = ("head.", "fc_norm.")


def make_classifier(
    backbone: Backbone, *, classes: int, pool: str, drop_path: float, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Put a head on an encoder, as MILAN's official fine-tuning does.

    With `pool` "mean", the mean of the patch tokens is normed by a new LayerNorm in place of the
    encoder's own, which was trained to norm single tokens: so do MILAN's and MAE's `models_vit.py`.
    The head starts as a truncated normal of std 0.02, with zero biases: in MILAN's
    `main_finetune.py` the line of MAE's that makes it 2e-5 is commented out.

    Args:
        backbone: the encoder; its weights are copied.
        classes: outputs of the head.
        pool: "mean" of the patch tokens, or the "cls" token.
        drop_path: rate of stochastic depth at the last block; it rises linearly from 0.
        seed: of the head's weights; torch's global random state is left as it was.

    Returns:
        The model, on the CPU, all of it trainable, and the arguments with which
        `timm.create_model` makes it again (without stochastic depth).

    Raises:
        ConfigError: the encoder has no class token to pool by.
        MismatchError: a weight has no place.
    """
    norms = NORMS_OF_MEAN if pool == "mean" else {}
    arguments: dict[str, Any] = {
        **backbone.arguments,
        **{name: value for name, value in norms.items() if name in backbone.arguments},
        "num_classes": classes,
        "global_pool": POOLS[pool],
    }
    arguments.pop("drop_path_rate", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: Any = timm.create_model(**arguments, drop_path_rate=drop_path)
        except CANNOT_BUILD as error:
            raise ConfigError(
                f"--encoder {backbone.name!r} makes no classifier with --pool {pool} "
                f"({reason_of(error)}); try the other --pool"
            ) from error
        nn.init.trunc_normal_(model.head.weight, std=HEAD_STD)
        nn.init.zeros_(model.head.bias)
    share_graphs(model)
    drawn = {name: value for name, value in model.state_dict().items() if name.startswith(DRAWN)}
    given = backbone.model.state_dict()
    if pool == "mean":
        given = {name: value for name, value in given.items() if not name.startswith("norm.")}
    try:
        model.load_state_dict(drawn | given, strict=True)
    except RuntimeError as error:
        raise MismatchError(
            f"--encoder {backbone.name!r} has weights without a place in a classifier "
            f"({reason_of(error)}); try the other --pool"
        ) from error
    classifier: nn.Module = model
    return classifier, arguments


class _Arguments(Arguments):
    num_classes: Positive
    img_size: Positive


class _Stored(TypedDict):
    timm: _Arguments
    mean: Means
    std: Deviations
    crop_pct: float
    classes: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierDescription:
    """Everything about a classifier except its weights.

    Attributes:
        arguments: plain JSON; `timm.create_model(**arguments)` makes it again, head included.
        mean: of each channel of the pixels in [0, 1] that it is given.
        std: of each channel of these pixels.
        crop_pct: share of the resized image's side that evaluation uses.
        classes: names of its outputs; empty if the data do not name them.
    """

    arguments: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    classes: tuple[str, ...]

    @property
    def image_size(self) -> int:
        """Height and width of the images that it is given, in pixels."""
        return int(self.arguments["img_size"])


def write_classifier(
    folder: Path,
    name: str,
    state: Mapping[str, Tensor],
    description: ClassifierDescription,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write `NAME.safetensors`, which timm's model takes strictly, and `NAME.json`.

    `about` stands in the description, too: of which `step` the weights are, and by which `val`
    images they were chosen.
    """
    document = {
        "timm": description.arguments,
        "mean": list(description.mean),
        "std": list(description.std),
        "crop_pct": description.crop_pct,
        "interpolation": INTERPOLATION,
        "classes": list(description.classes),
    }
    put_weights(folder, name, state, document | dict(about))


def read_classifier_description(weights: str) -> ClassifierDescription:
    """Read the `.json` beside a classifier's `.safetensors`.

    Raises:
        MissingDataError: it is not there.
        DataError: it describes no classifier.
    """
    url = weights.removesuffix(".safetensors") + ".json"
    document = read_document(url, _Stored, what="classifier", remedy="give one that finetune wrote")
    return ClassifierDescription(
        arguments=document["timm"] | {"pretrained": False, "checkpoint_path": ""},
        mean=tuple(document["mean"]),
        std=tuple(document["std"]),
        crop_pct=document["crop_pct"],
        classes=tuple(document["classes"]),
    )


def read_classifier(weights: str) -> tuple[nn.Module, ClassifierDescription]:
    """Make a classifier of its files, on the CPU.

    Raises:
        MissingDataError: they are not there.
        DataError: they are damaged.
        ConfigError: this timm does not have the model.
        MismatchError: the weights do not fit the description.
    """
    description = read_classifier_description(weights)
    name = description.arguments["model_name"]
    if not timm.is_model(name):
        raise ConfigError(
            f"{weights} is of the model {name!r}, which this timm does not have; install the "
            "version that trained it"
        )
    state = plain_tensors(weights, read_checked(weights), remedy="fine-tune again")
    try:
        model: nn.Module = timm.create_model(**description.arguments)
        model.load_state_dict(state, strict=True)
    except CANNOT_BUILD as error:
        raise MismatchError(
            f"{weights} does not fit the .json beside it ({reason_of(error)}); fine-tune again"
        ) from error
    return model, description
