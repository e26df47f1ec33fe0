"""Names of models that a shell offers, read from the packages' files: imports take seconds."""

import importlib.util
import re
from pathlib import Path

TIMM_FAMILIES = ("vision_transformer", "deit", "eva")
"""Files of timm with plain ViTs."""
ENTRY = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
TAGGED = re.compile(r"^ +'(\w+\.(?!untrained)\w+)': ", re.MULTILINE)
"""Names of models with the tags of weights, as timm lists them."""


def teacher_names() -> list[str]:
    """Return names of models of open_clip and timm, and how names of other places begin."""
    folder = _folder("open_clip")
    found = [] if folder is None else (folder / "model_configs").glob("*.json")
    of_timm = [f"timm:{name}" for name in _found_in_timm(TAGGED)]
    return [*sorted(path.stem for path in found), "hf-hub:", "local-dir:", "run:", *of_timm]


def student_names() -> list[str]:
    """Return timm's names of plain ViTs."""
    return _found_in_timm(ENTRY)


def _found_in_timm(pattern: re.Pattern[str]) -> list[str]:
    """Return what a pattern finds in timm's files of plain ViTs."""
    folder = _folder("timm")
    if folder is None:
        return []
    files = [folder / "models" / f"{name}.py" for name in TIMM_FAMILIES]
    return sorted(
        name
        for file in files
        if file.is_file()
        for name in pattern.findall(file.read_text(encoding="utf-8"))
    )


def _folder(package: str) -> Path | None:
    """Return the folder of an installed package; None if there is none."""
    spec = importlib.util.find_spec(package)
    places = None if spec is None else spec.submodule_search_locations
    return Path(places[0]) if places else None
