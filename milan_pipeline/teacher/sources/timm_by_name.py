"""A teacher that timm builds: by name, in a folder, or in a repository of the hub."""

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any, TypedDict

import timm
from timm.models import PretrainedCfg

from milan_pipeline.core.hub import asking_hub
from milan_pipeline.core.schema import DocumentError, conforming
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import Statistics, fault_of_statistics
from milan_pipeline.images.views import Interpolation
from milan_pipeline.teacher.configuration import explaining, stated_configuration
from milan_pipeline.teacher.sources.known_names import TIMM_CONFIGURATION, require_timm_model
from milan_pipeline.teacher.sources.timm_model import TimmModel
from milan_pipeline.teacher.spec import HUB, LOCAL, TIMM, TeacherSpec
from milan_pipeline.teacher.timm_visual import TimmVisual
from milan_pipeline.teacher.weights import require_finite, require_plain, weights_file

logger = logging.getLogger(__name__)


class TimmModelByName(TimmModel):
    """A model by timm's name, `timm:NAME` or `timm:NAME.TAG`, or of a folder or repository.

    Raises:
        ConfigError: there is no such model, or timm has no weights of it and no file is named.
    """

    def __init__(self, spec: TeacherSpec) -> None:
        self._spec = spec
        self._asked = spec.name.removeprefix(TIMM)
        self._elsewhere = self._asked.startswith((LOCAL, HUB))
        if self._elsewhere:
            model, arguments, config = _of_place(spec.name)
            super().__init__(spec.name, model, arguments, config)
        else:
            config = _of_registry(spec)
            model, tag = self._asked.partition(".")[0], config.get("tag")
            super().__init__(spec.name, f"{model}.{tag}" if tag else model, {})
        self._config = config

    def identity(self) -> dict[str, Any]:
        """Return its name, its tag, or "file", and its licence where timm says one."""
        name, tag = self._spec.name_in_identity, self._spec.tag_in_identity
        if not self._elsewhere:
            model, _, known = self.model.partition(".")
            name, tag = f"{TIMM}{model}", tag or known
        licence = self._config.get("license")
        return {"name": name, "pretrained": tag} | ({"license": licence} if licence else {})

    def statistics(self) -> Statistics:
        """Return those that were asked for, or those of timm's configuration.

        Raises:
            ConfigError: it has none.
        """
        if self._spec.statistics is not None:
            return self._spec.statistics
        mean, std = (list(map(float, self._config.get(name) or ())) for name in ("mean", "std"))
        fault = fault_of_statistics(mean, std) if mean or std else "there are none"
        if fault:
            raise ConfigError(
                f"--teacher {self.name!r} has a configuration without mean and std of its pixels "
                f"({fault}); give --teacher-norm MEAN/STD, as its weights were trained with"
            )
        return Statistics(mean, std)

    def interpolation(self) -> Interpolation:
        """Return timm's for the weights, or bicubic where views cannot be resized so, and warn."""
        stated = self._config.get("interpolation", "bicubic")
        if stated in ("bicubic", "bilinear"):
            found: Interpolation = stated
            return found
        if isinstance(stated, tuple):
            _warn_of_tags(self.name, stated)
        else:
            _warn_of_interpolation(self.name, stated)
        return "bicubic"

    def require_loadable(self) -> None:
        """Refuse a folder without weights, and unknown statistics."""
        self.statistics()
        weights_file(self._spec)

    def trained(self, size: int | None) -> TimmVisual:
        """Load its weights: of a file or folder, or by name with timm's own code."""
        path = weights_file(self._spec)
        if path is None:
            visual = self._fetched(size)
            require_finite(visual.trunk, f"--teacher {self.name!r}")
            return visual
        with explaining(f"{path} cannot be read as weights", "copy or download it again"):
            state = timm.models.load_state_dict(str(path))
        require_plain(state, path)
        visual = self.filled(state, str(path), size)
        require_finite(visual.trunk, str(path))
        return visual

    def _fetched(self, size: int | None) -> TimmVisual:
        failure = f"the weights of --teacher {self.name!r} cannot be loaded"
        remedy = (
            "connect to the network once (see docs/without-network.md), or give weights that are "
            f"here: --pretrained FILE, or --teacher {TIMM}{LOCAL}FOLDER"
        )
        with explaining(failure, remedy), asking_hub(self._asked):
            name = self._asked if self._elsewhere else self.model
            visual = self.created(name, pretrained=True)
        return self._finished(visual, size)


class _Used(TypedDict, total=False):
    """What is used of timm's configuration of weights."""

    mean: list[float]
    std: list[float]
    interpolation: str
    license: str | None


def _of_registry(spec: TeacherSpec) -> dict[str, Any]:
    """Return timm's configuration of a name's weights; the tag is that of the weights, if named.

    Raises:
        ConfigError: timm knows no such name or tag, or does not tell which weights are meant.
    """
    model, _, tag = spec.name.removeprefix(TIMM).partition(".")
    require_timm_model(spec.name)
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        raise ConfigError(
            f"--teacher {spec.name!r} has a tag that timm does not know; "
            + (f"choose {' or '.join(tags)}" if tags else "leave it out and give --pretrained FILE")
        )
    if spec.pretrained is not None:
        return _of_file(spec, model, [tag] if tag else tags)
    if not tags:
        raise ConfigError(
            f"--teacher {spec.name!r} is a model of which timm has no weights; give --pretrained "
            "FILE"
        )
    return _entry(f"{model}.{tag}" if tag else model)


def _of_file(spec: TeacherSpec, model: str, tags: list[str]) -> dict[str, Any]:
    """Return what holds for a file of weights: all that timm says of the tags it may be of.

    Where their interpolations differ, these are a tuple.
    """
    if not Path(spec.pretrained or "").is_file():
        raise ConfigError(
            f"--pretrained {spec.pretrained!r} is no file; give one, or name timm's own weights as "
            f"--teacher {TIMM}{model}.TAG"
        )
    found = [_entry(f"{model}.{tag}") for tag in tags]
    shared = {
        key: value
        for key, value in (found[0] if found else {}).items()
        if all(entry.get(key) == value for entry in found)
    }
    stated = tuple(sorted({str(entry.get("interpolation")) for entry in found}))
    return shared | ({"interpolation": stated} if len(stated) > 1 else {})


def _entry(name: str) -> dict[str, Any]:
    config: PretrainedCfg | None = timm.get_pretrained_cfg(name)
    return {} if config is None else config.to_dict()


def _of_place(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read `config.json` of a folder or repository in timm's form.

    Returns:
        The architecture, its arguments, and the configuration of the weights.

    Raises:
        ConfigError: there is none, or timm does not have the architecture.
    """
    document = stated_configuration(name, TIMM_CONFIGURATION)
    config, model = document.get("pretrained_cfg", document), document.get("architecture")
    arguments = document.get("model_args") or {}
    if not (isinstance(config, dict) and isinstance(arguments, dict) and isinstance(model, str)):
        raise ConfigError(
            f"--teacher {name!r} has a {TIMM_CONFIGURATION} that is not of timm's form, with "
            "architecture and pretrained_cfg; give a folder or repository that timm can load"
        )
    if not timm.is_model(model):
        raise ConfigError(
            f"--teacher {name!r} has the architecture {model!r}, which this timm does not have; "
            "install the version that it was saved with"
        )
    try:
        conforming({key: config[key] for key in _Used.__annotations__ if key in config}, _Used)
    except DocumentError as error:
        raise ConfigError(
            f"--teacher {name!r} has a {TIMM_CONFIGURATION} whose pretrained_cfg cannot be used "
            f"({error}); copy it again"
        ) from error
    fields = {field.name for field in dataclasses.fields(PretrainedCfg)}
    return model, arguments, {key: value for key, value in config.items() if key in fields}


@functools.cache
def _warn_of_tags(name: str, stated: tuple[str, ...]) -> None:
    """Warn, once for the same teacher."""
    logger.warning(
        "--teacher %r has weights in timm that take images resized by %s, and --pretrained does "
        "not say which of these the file holds; its views are resized by bicubic interpolation; "
        "for another, name the weights as --teacher %s.TAG",
        name, " or ".join(stated), name,
    )  # fmt: skip


@functools.cache
def _warn_of_interpolation(name: str, interpolation: str) -> None:
    """Warn, once for the same teacher."""
    logger.warning(
        "--teacher %r takes images resized by %s interpolation, which is not known here; its views "
        "are resized by bicubic interpolation",
        name, interpolation,
    )  # fmt: skip
