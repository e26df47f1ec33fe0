"""Read a teacher's configuration: from open_clip's registry, a local folder or the hub."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from milan_pipeline.core.hub import asking_hub
from milan_pipeline.core.out_of_memory import is_out_of_memory
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.core.suggestions import LEAST_ALIKE, did_you_mean
from milan_pipeline.errors import ConfigError, MilanError, reason_of
from milan_pipeline.provenance.run_state import STATE_NAME
from milan_pipeline.teacher.open_clip_tables import architecture, architecture_names
from milan_pipeline.teacher.spec import HUB, LOCAL, RUN, TIMM

CONFIGURATION = "open_clip_config.json"
LONGEST_REASON = 300


def model_config(name: str) -> dict[str, Any]:
    """Read what a model is built from.

    Raises:
        ConfigError: there is no such model, or its configuration is not that of a CLIP.
    """
    require_no_folder(name)
    if name.startswith((LOCAL, HUB)):
        document = stated_configuration(name, CONFIGURATION)
        config = document.get("model_cfg", document)
    else:
        config = architecture(name)
    if config is None:
        raise ConfigError(
            f"--teacher {name!r} is no open_clip model; see open_clip.list_models(), or give "
            "hf-hub:ORG/REPO, local-dir:PATH, timm:NAME.TAG or run:FOLDER"
            + did_you_mean(name, architecture_names(), least=LEAST_ALIKE)
        )
    if not (
        isinstance(config, dict)
        and isinstance(config.get("vision_cfg"), dict)
        and "embed_dim" in config
    ):
        raise ConfigError(
            f"--teacher {name!r} has a configuration without vision_cfg and embed_dim; give the "
            "folder or repository of a CLIP"
        )
    return config


def stated_configuration(name: str, file: str) -> dict[str, Any]:
    """Read the configuration in a local folder or a hub repository.

    Args:
        name: of the teacher.
        file: name of the configuration, such as `CONFIGURATION`.

    Raises:
        ConfigError: there is none, or it is no JSON object.
    """
    kind, _, place = name.removeprefix(TIMM).partition(":")
    failure = f"--teacher {name!r} has no readable configuration"
    if kind == "hf-hub":
        remedy = (
            "check the name and the network, or give a copy of the repository as local-dir:PATH"
        )
        with explaining(failure, remedy), asking_hub(place):
            # Imported here, since all other configurations are read without open_clip.
            client = importlib.import_module("open_clip.pretrained")
            path = Path(client.download_pretrained_from_hf(place, filename=file))
    else:
        path = Path(place) / file
    try:
        return parsed(path.read_bytes(), dict[str, Any])
    except (OSError, DocumentError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{failure} ({path}: {reason}); {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    if path.exists():
        return "copy the file again from where the weights came from"
    return _what_it_is(path.parent) or f"give a folder that holds {path.name} and weights"


def require_no_folder(name: str) -> None:
    """Refuse a teacher that is a folder, since its name does not say of what.

    A name of open_clip is that model, whatever lies here.

    Raises:
        ConfigError: it is one.
    """
    is_folder = ":" not in name and os.path.isdir(name)  # noqa: PTH112 - raises nothing
    if is_folder and architecture(name) is None:
        remedy = (
            f"give {LOCAL}FOLDER of a CLIP, {TIMM}{LOCAL}FOLDER of a model of timm, {RUN}FOLDER"
        )
        raise ConfigError(f"--teacher {name!r} is a folder; {_what_it_is(Path(name)) or remedy}")


def _what_it_is(folder: Path) -> str | None:
    """Say what to give for a folder; None if nothing is known of it."""
    forms = {
        CONFIGURATION: f"{LOCAL}{folder}, which is a CLIP of open_clip",
        STATE_NAME: f"{RUN}{folder}, which is a run",
    }
    for name, form in forms.items():
        if (folder / name).exists():
            return f"give {form}"
    if _is_of_timm(folder / "config.json"):
        return f"give {TIMM}{LOCAL}{folder}, which is a model of timm"
    if _is_of_transformers(folder / "config.json"):
        return (
            "what lies there is a model of transformers: give that CLIP by open_clip's name and "
            "--pretrained tag, or a folder in open_clip's form"
        )
    return None


def _is_of_transformers(path: Path) -> bool:
    """Tell whether a file is the configuration of a model of transformers."""
    return _has(path, "model_type")


def _is_of_timm(path: Path) -> bool:
    """Tell whether a file is the configuration of a model in timm's form."""
    return _has(path, "architecture") and _has(path, "pretrained_cfg")


def _has(path: Path, field: str) -> bool:
    try:
        return field in parsed(path.read_bytes(), dict[str, Any])
    except (OSError, DocumentError):
        return False


@contextlib.contextmanager
def explaining(failure: str, remedy: str) -> Iterator[None]:
    """Turn whatever open_clip, timm or the hub's client raise into one sentence.

    Args:
        failure: the sentence's begin, such as "--teacher 'x' cannot be built".
        remedy: its end.

    Raises:
        ConfigError: something was raised inside the block, other than for want of memory.
    """
    try:
        yield
    except MilanError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{failure} ({shortened(error)}); {remedy}") from error


def shortened(error: Exception) -> str:
    """Return what an error says as one line that is not too long."""
    reason = reason_of(error)
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
