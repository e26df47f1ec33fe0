"""Find out whether a CLIP was trained with QuickGELU.

Features depend on it, but weights do not show it. open_clip only warns if the registry entry of a
tag and the model's configuration differ, and does not check weights from a file or a folder.
"""

import zipfile
from pathlib import Path
from typing import Any

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.open_clip_tables import published
from milan_pipeline.teacher.published_weights import Entry, common, entries, said_of_file

WEIGHTS_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def settle_quick_gelu(name: str, pretrained: str | None, config: dict[str, Any]) -> bool:
    """Tell whether a model must have QuickGELU, because its weights were trained with it.

    With a plain name, the tag decides: `ViT-B-16` with `openai` has QuickGELU. Other weights that
    are recognised must fit the configuration. timm's towers do not read that flag.

    Raises:
        ConfigError: the weights are known to have been trained with the other activation.
    """
    configured = bool(config.get("quick_gelu", False))
    if "timm_model_name" in config["vision_cfg"]:
        return configured
    if ":" in name:
        _require_fitting_folder(name, configured)
        return configured
    tag = published(name, pretrained) if pretrained else {}
    if tag:
        return _decided_by_tag(name, pretrained, configured, bool(tag.get("quick_gelu", False)))
    if pretrained is not None and Path(pretrained).is_file():
        _require_fitting_file(name, Path(pretrained), configured)
    return configured


def _decided_by_tag(name: str, pretrained: str | None, configured: bool, trained: bool) -> bool:
    if name.endswith("-quickgelu") and not trained:
        raise ConfigError(
            f"--teacher {name!r} has QuickGELU, which the weights of --pretrained {pretrained!r} "
            "were trained without; leave out -quickgelu"
        )
    return configured or trained


def _require_fitting_file(name: str, path: Path, configured: bool) -> None:
    if _is_torchscript(path):
        raise ConfigError(
            f"--pretrained {str(path)!r} is a TorchScript archive, the form of OpenAI's weights, "
            "which were trained with QuickGELU; give --pretrained openai, or a file of weights"
        )
    trained = trained_with_quick_gelu(path)
    if trained is None or trained == configured:
        return
    plain = name.removesuffix("-quickgelu")
    remedy = plain if configured else f"{plain}-quickgelu"
    raise ConfigError(
        f"--teacher {name!r} has {_called(configured)}, but --pretrained {str(path)!r} is known as "
        f"weights that were trained with {_called(trained)}; give --teacher {remedy}"
    )


def _require_fitting_folder(name: str, configured: bool) -> None:
    """Refuse a folder or hub repository whose configuration does not fit its weights."""
    kind, _, place = name.partition(":")
    if kind == "hf-hub":
        trained = common(entries().get(place.strip("/"), []), _has_quick_gelu)
    else:
        folder = Path(place)
        files = sorted(path for path in folder.glob("*") if path.suffix in WEIGHTS_SUFFIXES)
        known = [trained_with_quick_gelu(path) for path in files]
        trained = next((answer for answer in known if answer is not None), None)
    if trained is not None and trained != configured:
        raise ConfigError(
            f"--teacher {name!r} is configured with {_called(configured)}, but its weights are "
            f"known as trained with {_called(trained)}; set quick_gelu to {str(trained).lower()} "
            "under model_cfg in a local copy of its open_clip_config.json"
        )


def trained_with_quick_gelu(path: Path) -> bool | None:
    """Tell how a file of weights was trained; None if open_clip's registry does not know it."""
    return said_of_file(path, _has_quick_gelu)


def _has_quick_gelu(entry: Entry) -> bool:
    return bool(entry.get("quick_gelu", False))


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _called(quick_gelu: bool) -> str:
    return "QuickGELU" if quick_gelu else "plain GELU"
