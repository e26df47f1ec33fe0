"""A fine-tuned classifier in a run folder: written so that timm makes it again, and read back."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import safetensors.torch
import timm
from safetensors import SafetensorError
from torch import Tensor, nn

from milan_pipeline.descriptions import Arguments, Channels, read_document
from milan_pipeline.documents import Positive
from milan_pipeline.errors import ConfigError, DataError, MismatchError
from milan_pipeline.evaluation_view import INTERPOLATION
from milan_pipeline.export import put_weights
from milan_pipeline.sums import read_checked
from milan_pipeline.vit import CANNOT_BUILD


class _Arguments(Arguments):
    num_classes: Positive
    img_size: Positive


class _Stored(TypedDict):
    timm: _Arguments
    mean: Channels
    std: Channels
    crop_pct: float
    classes: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """What must be known of a classifier besides its weights.

    Attributes:
        arguments: plain JSON; `timm.create_model(**arguments)` makes it again, head included.
        mean: of each channel of the pixels in [0, 1] that it is given.
        std: likewise.
        crop_pct: share of the resized image's side that it is to see.
        classes: names of its outputs, or empty where the data did not tell.
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
    folder: Path, name: str, state: Mapping[str, Tensor], description: Description
) -> None:
    """Write `NAME.safetensors`, which timm's model takes strictly, and `NAME.json`."""
    document = {
        "timm": description.arguments,
        "mean": list(description.mean),
        "std": list(description.std),
        "crop_pct": description.crop_pct,
        "interpolation": INTERPOLATION,
        "classes": list(description.classes),
    }
    put_weights(folder, name, state, document)


def read_description(weights: str) -> Description:
    """Read the `.json` beside a classifier's `.safetensors`.

    Raises:
        MissingDataError: it is not there.
        DataError: it describes no classifier.
    """
    url = weights.removesuffix(".safetensors") + ".json"
    document = read_document(url, _Stored, what="classifier", remedy="give one that finetune wrote")
    return Description(
        arguments=document["timm"] | {"pretrained": False, "checkpoint_path": ""},
        mean=tuple(document["mean"]),
        std=tuple(document["std"]),
        crop_pct=document["crop_pct"],
        classes=tuple(document["classes"]),
    )


def read_classifier(weights: str) -> tuple[nn.Module, Description]:
    """Make a classifier of its files, on the CPU.

    Raises:
        MissingDataError: they are not there.
        DataError: they are damaged.
        ConfigError: this timm does not have the model.
        MismatchError: the weights do not fit the description.
    """
    description = read_description(weights)
    name = description.arguments["model_name"]
    if not timm.is_model(name):
        raise ConfigError(
            f"{weights} is of the model {name!r}, which this timm does not have; install the "
            "version that trained it"
        )
    try:
        model: nn.Module = timm.create_model(**description.arguments)
        model.load_state_dict(safetensors.torch.load(read_checked(weights)), strict=True)
    except SafetensorError as error:
        raise DataError(f"{weights} is damaged ({error}); fine-tune again") from error
    except CANNOT_BUILD as error:
        reason = " ".join(str(error).split())
        raise MismatchError(
            f"{weights} does not fit the .json beside it ({reason}); fine-tune again"
        ) from error
    return model, description
