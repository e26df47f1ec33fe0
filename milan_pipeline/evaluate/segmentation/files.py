"""A segmenter in a run folder: `NAME.safetensors` and `NAME.json`, written and read back."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict

import timm
from torch import Tensor

from milan_pipeline.core.schema import DocumentError, Positive, conforming
from milan_pipeline.errors import ConfigError, DataError, MismatchError, reason_of
from milan_pipeline.evaluate.segmentation.model import HEADS, HeadSpec, Segmenter, make_segmenter
from milan_pipeline.models.weight_files import (
    Arguments,
    Deviations,
    Means,
    plain_tensors,
    put_weights,
    read_document,
)
from milan_pipeline.storage.checksums import read_checked


class _Arguments(Arguments):
    img_size: Positive


class _Stored(TypedDict):
    timm: _Arguments
    mean: Means
    std: Deviations
    segmenter: dict[str, Any]
    reduce_zero_label: NotRequired[bool]
    classes: NotRequired[list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterDescription:
    """Everything about a segmenter except its weights.

    Attributes:
        arguments: plain JSON; `timm.create_model(**arguments)` makes its encoder again.
        mean: of each channel of the pixels in [0, 1] that it is given.
        std: of each channel of these pixels.
        spec: of its head.
        reduce_zero_label: whether 0 had no class in the masks that it was trained on; None where
            that is not known.
        classes: names of its outputs; empty if nobody gave them.
    """

    arguments: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spec: HeadSpec
    reduce_zero_label: bool | None = None
    classes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        """Height and width of the views that it was trained on, in pixels."""
        return int(self.arguments["img_size"])


def write_segmenter(
    folder: Path,
    name: str,
    state: Mapping[str, Tensor],
    description: SegmenterDescription,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write `NAME.safetensors`, strictly the state of `Segmenter`, and `NAME.json`.

    `about` stands in the description, too: of which `step` the weights are, and by which `val`
    images they were chosen.
    """
    document: dict[str, Any] = {
        "timm": description.arguments,
        "mean": list(description.mean),
        "std": list(description.std),
        "segmenter": dataclasses.asdict(description.spec),
    }
    if description.reduce_zero_label is not None:
        document["reduce_zero_label"] = description.reduce_zero_label
    if description.classes:
        document["classes"] = list(description.classes)
    put_weights(folder, name, state, document | dict(about))


def read_segmenter(weights: str) -> tuple[Segmenter, SegmenterDescription]:
    """Make a segmenter of its files, on the CPU.

    Raises:
        MissingDataError: they are not there.
        DataError: they are damaged, or describe no segmenter.
        ConfigError: this timm does not have the encoder.
        MismatchError: the weights do not fit the description.
    """
    description = read_segmenter_description(weights)
    name = description.arguments["model_name"]
    if not timm.is_model(name):
        raise ConfigError(
            f"{weights} is of the model {name!r}, which this timm does not have; install the "
            "version that trained it"
        )
    model = make_segmenter(description.arguments, description.spec)
    state = plain_tensors(weights, read_checked(weights), remedy="train again")
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise MismatchError(
            f"{weights} does not fit the .json beside it ({reason_of(error)}); train again"
        ) from error
    return model, description


def read_segmenter_description(weights: str) -> SegmenterDescription:
    """Read the description beside a segmenter's weights.

    Raises:
        MissingDataError: it is not there.
        DataError: it is damaged, or describes no segmenter.
    """
    url = weights.removesuffix(".safetensors") + ".json"
    remedy = "give one that segment wrote"
    document = read_document(url, _Stored, what="segmenter", remedy=remedy)
    try:
        spec = conforming(document["segmenter"], HeadSpec)
        if spec.head not in HEADS:
            raise DocumentError(f"there is no head {spec.head!r:.80}")
    except DocumentError as error:
        raise DataError(f"{url} describes no segmenter ({error}); {remedy}") from error
    # A description may come from a stranger: it must not make timm fetch or unpickle anything.
    return SegmenterDescription(
        arguments=document["timm"] | {"pretrained": False, "checkpoint_path": ""},
        mean=tuple(document["mean"]),
        std=tuple(document["std"]),
        spec=spec,
        reduce_zero_label=document.get("reduce_zero_label"),
        classes=tuple(document.get("classes", ())),
    )
