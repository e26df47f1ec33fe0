"""open_clip's tables of architectures and of published weights, read without importing open_clip.

open_clip imports torch, torchvision and timm, which takes seconds. Its tables are a folder of JSON
files and one file of Python. Where open_clip is loaded it is asked itself, since a program may have
added to its tables.
"""

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

FILES = ("constants.py", "pretrained.py")
"""In the order in which they need each other."""
ASKED = ("get_pretrained_cfg", "list_pretrained", "list_pretrained_tags_by_model")
NEEDED = ("embed_dim", "vision_cfg", "text_cfg")
"""What open_clip looks for in the file of an architecture."""


def architecture(name: str) -> dict[str, Any] | None:
    """Return the configuration of an architecture; None if open_clip has none of that name."""
    factory: Any = sys.modules.get("open_clip.factory")
    if factory is not None:
        loaded: dict[str, Any] | None = factory.get_model_config(name)
        return loaded
    files = _architectures()
    if name not in files:
        return None
    found: dict[str, Any] = json.loads(files[name].read_bytes())
    return found if all(key in found for key in NEEDED) else None


def architecture_names() -> list[str]:
    """Return the names of architectures that open_clip has files of; none if it is not there."""
    return sorted(_architectures()) if importlib.util.find_spec("open_clip") else []


def published(name: str, tag: str) -> dict[str, Any]:
    """Return what the registry says of the weights of a tag; nothing if it does not have them."""
    found: dict[str, Any] = _registry()["get_pretrained_cfg"](name, tag)
    return found


def tags_of(name: str) -> list[str]:
    """Return the tags of an architecture's published weights."""
    found: list[str] = _registry()["list_pretrained_tags_by_model"](name)
    return found


def all_published() -> list[tuple[str, str]]:
    """Return the architecture and the tag of all published weights."""
    found: list[tuple[str, str]] = _registry()["list_pretrained"]()
    return found


def _registry() -> dict[str, Any]:
    """Return the names of `open_clip.pretrained`."""
    loaded = sys.modules.get("open_clip.pretrained")
    return _read_alone() if loaded is None else vars(loaded)


@functools.cache
def _read_alone() -> dict[str, Any]:
    """Load the file of the registry by `_Alone`; where it has another form, import open_clip."""
    names: dict[str, Any] = {}
    try:
        for name in FILES:
            names = _names_of(_folder() / name, names)
        _ = [names[needed] for needed in ASKED]
    except Exception:  # noqa: BLE001 - of whatever kind: open_clip can be asked itself
        return vars(importlib.import_module("open_clip.pretrained"))
    return names


def _names_of(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a file defines.

    Args:
        path: of the file.
        given: what it would import from others of its package.
    """
    loader = _Alone(f"{__name__}.{path.stem}", str(path))
    module = types.ModuleType(loader.name)
    vars(module).update(given)
    loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


class _Alone(importlib.machinery.SourceFileLoader):
    """Loads a file without what it imports from its package, and only to download weights.

    open_clip tries the latter imports, and does without them where they fail.
    """

    def get_code(self, fullname: str) -> types.CodeType:  # noqa: ARG002 - its name is of no matter
        """Compile what is left of the file; nothing is kept, since other code is under its name."""
        tree = ast.parse(self.get_data(self.path))
        tree.body = [node for node in tree.body if not _is_left_out(node)]
        code: types.CodeType = self.source_to_code(tree, self.path)
        return code


def _is_left_out(node: ast.stmt) -> bool:
    """Tell whether a statement tries an import, or imports what was loaded before."""
    return isinstance(node, ast.Try) or (isinstance(node, ast.ImportFrom) and node.level > 0)


def _architectures() -> dict[str, Path]:
    return {path.stem: path for path in (_folder() / "model_configs").glob("*.json")}


def _folder() -> Path:
    """Return the folder of the package, which is found without importing it."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("open_clip is not installed; install open_clip_torch")
    return Path(found.origin).parent
