"""Refuses teachers that are nowhere, by a glance at names and files that loads no library."""

from milan_pipeline import storage
from milan_pipeline.core.suggestions import LEAST_ALIKE, did_you_mean
from milan_pipeline.errors import ConfigError, MissingDataError
from milan_pipeline.models.timm_names import is_model, vit_names
from milan_pipeline.teacher.configuration import model_config, stated_configuration
from milan_pipeline.teacher.published_weights import require_known_tag
from milan_pipeline.teacher.spec import HUB, LOCAL, RUN, TIMM, TeacherSpec

TIMM_CONFIGURATION = "config.json"
"""In a folder or repository of timm's form."""


def require_teacher(spec: TeacherSpec) -> None:
    """Refuse a teacher that is not there. What a hub has is not asked.

    Raises:
        ConfigError: open_clip or timm has no such model, open_clip no such weights, or a folder has
            no readable configuration.
        MissingDataError: there is no such run.
    """
    name = spec.name
    if name.startswith(RUN):
        _require_run(name.removeprefix(RUN))
    elif name.startswith(TIMM + LOCAL):
        stated_configuration(name, TIMM_CONFIGURATION)
    elif name.startswith(TIMM) and not name.startswith(TIMM + HUB):
        require_timm_model(name)
    elif not name.startswith((HUB, TIMM)):
        model_config(name)
        require_known_tag(spec)


def require_timm_model(name: str) -> None:
    """Refuse `timm:NAME` or `timm:NAME.TAG` of a model that timm does not have.

    Raises:
        ConfigError: it does not.
    """
    if not is_model(name.removeprefix(TIMM).partition(".")[0]):
        raise ConfigError(
            f"--teacher {name!r} is no model of timm; `timm.list_models('*dino*')` names some, or "
            f"give {TIMM}{LOCAL}PATH or {TIMM}{HUB}ORG/REPO"
            + did_you_mean(name.removeprefix(TIMM), vit_names(), least=LEAST_ALIKE)
        )


def _require_run(place: str) -> None:
    path = storage.local_path(place) if place else None
    if path is not None and not path.exists():
        raise MissingDataError(f"{place} does not exist; check the path")
