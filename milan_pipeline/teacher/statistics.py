"""Settle by which mean and std a teacher's pixels are normalised.

Targets depend on them, but weights do not show them. open_clip takes those of OpenAI's CLIP
wherever nothing states others, which is wrong for every third architecture.
"""

import functools
import logging
from pathlib import Path
from typing import Any, TypedDict

from milan_pipeline.core.schema import DocumentError, conforming
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import NAMED, Statistics, fault_of_statistics
from milan_pipeline.teacher.configuration import CONFIGURATION, stated_configuration
from milan_pipeline.teacher.open_clip_tables import published, tags_of
from milan_pipeline.teacher.published_weights import Entry, common, said_of_file
from milan_pipeline.teacher.spec import TeacherSpec

DEFAULT = NAMED["openai"]
Channels = tuple[tuple[float, ...], tuple[float, ...]]

logger = logging.getLogger(__name__)


class _Stated(TypedDict, total=False):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def settled_statistics(spec: TeacherSpec) -> Statistics:
    """Return the mean and std of a teacher's pixels.

    They are those that were asked for, or those that its weights are known to have been trained
    with, or OpenAI's, of which a warning then tells.

    Raises:
        ConfigError: the configuration of a folder or repository states what cannot be.
    """
    if spec.statistics is not None:
        return spec.statistics
    if ":" in spec.name:
        return _of_configuration(spec.name)
    tag = published(spec.name, spec.pretrained) if spec.pretrained else {}
    if tag:
        return _as_statistics(_of_entry(tag))
    return _of_architecture(spec.name, spec.pretrained)


def _of_configuration(name: str) -> Statistics:
    stated = stated_configuration(name, CONFIGURATION).get("preprocess_cfg") or {}
    try:
        conforming(stated, _Stated)
        found = {key: list(map(float, stated[key])) for key in ("mean", "std") if key in stated}
        fault = fault_of_statistics(**(DEFAULT._asdict() | found))
    except DocumentError as error:
        fault = str(error)
    if fault:
        raise ConfigError(
            f"--teacher {name!r} has a configuration with no mean and std as they must be "
            f"({fault}); fix preprocess_cfg in its {CONFIGURATION}"
        )
    missing = [key for key in ("mean", "std") if key not in found]
    if missing:
        _warn_of_default(
            f"--teacher {name!r} has no {' and no '.join(missing)} under preprocess_cfg in its "
            f"{CONFIGURATION}"
        )
    return Statistics(**(DEFAULT._asdict() | found))


def _of_architecture(name: str, pretrained: str | None) -> Statistics:
    """Return those of a file of weights or, where it is not known, of the architecture."""
    file = None if pretrained is None else Path(pretrained)
    if file is not None and file.is_file():
        known = said_of_file(file, _of_entry)
        if known is not None:
            return _as_statistics(known)
    tags = tags_of(name)
    agreed = common([published(name, tag) for tag in tags], _of_entry)
    if agreed is not None:
        return _as_statistics(agreed)
    if file is not None:
        of_tags = ", whose published weights have several" if tags else ""
        _warn_of_default(
            f"--pretrained {pretrained!r} states no mean and std for --teacher {name!r}{of_tags}"
        )
    return DEFAULT


@functools.cache
def _warn_of_default(found: str) -> None:
    """Warn, once for the same weights."""
    logger.warning(
        "%s, so that those of OpenAI's CLIP are taken (%s); if the weights were trained with "
        "others, give these to extract-targets as --teacher-norm MEAN/STD, or write them under "
        "preprocess_cfg into %s of a local-dir:FOLDER",
        found, DEFAULT, CONFIGURATION,
    )  # fmt: skip


def _of_entry(entry: Entry) -> Channels:
    default: dict[str, Any] = DEFAULT._asdict()
    mean, std = (tuple(map(float, entry.get(key, default[key]))) for key in ("mean", "std"))
    return mean, std


def _as_statistics(channels: Channels) -> Statistics:
    mean, std = map(list, channels)
    return Statistics(mean, std)
