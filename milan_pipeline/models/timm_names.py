"""Names of timm's models, read from its files: to import timm takes seconds."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from milan_pipeline.core.suggestions import LEAST_ALIKE, did_you_mean
from milan_pipeline.errors import ConfigError

FAMILIES = ("vision_transformer", "deit", "eva")
"""Files of timm with plain ViTs."""
ENTRY = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
TAGGED = re.compile(r"^ +'(\w+\.(?!untrained)\w+)': ", re.MULTILINE)
"""Names of models with the tags of weights, as timm lists them."""


def vit_names() -> list[str]:
    """Return timm's names of plain ViTs."""
    return _found_in_families(ENTRY)


def tagged_vit_names() -> list[str]:
    """Return the names of plain ViTs that timm has weights of, with their tags."""
    return _found_in_families(TAGGED)


def is_model(name: str) -> bool:
    """Tell whether timm has a model of this name; where timm is loaded, it is asked itself.

    Otherwise its files are searched. A name that stands in them for anything is taken for a model:
    nothing that timm has is refused, old names included.
    """
    timm = sys.modules.get("timm")
    if timm is not None:
        return bool(timm.is_model(name))
    if re.fullmatch(r"\w+", name) is None:
        return False
    entry = re.compile(rf"\bdef {name}\(|['\"]{name}['\"]")
    return any(entry.search(text) for text in _texts())


def require_model(name: str) -> None:
    """Refuse a student that timm does not have.

    Raises:
        ConfigError: it does not; a similar name is given.
    """
    if not is_model(name):
        raise ConfigError(
            f"--student {name!r} is no model that timm knows; `timm.list_models('vit*')` names some"
            + did_you_mean(name, vit_names(), least=LEAST_ALIKE)
        )


def _found_in_families(pattern: re.Pattern[str]) -> list[str]:
    texts = (path.read_text(encoding="utf-8") for path in _files() if path.stem in FAMILIES)
    return sorted(name for text in texts for name in pattern.findall(text))


def _texts() -> Iterator[str]:
    """Yield the text of each file with models, those of plain ViTs first."""
    for path in sorted(_files(), key=lambda path: path.stem not in FAMILIES):
        yield path.read_text(encoding="utf-8")


def _files() -> list[Path]:
    """Return the files of timm's models; none where it is not installed."""
    spec = importlib.util.find_spec("timm")
    places = None if spec is None else spec.submodule_search_locations
    return sorted((Path(places[0]) / "models").glob("*.py")) if places else []
