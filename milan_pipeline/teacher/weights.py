"""Look at the files that a teacher's weights are loaded from: before, after, and if that fails."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from milan_pipeline.core.file_kinds import HEAD, stand_in
from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.configuration import shortened
from milan_pipeline.teacher.spec import LOCAL, TIMM, WITH_WEIGHTS, TeacherSpec

# The order in which open_clip looks for weights in a folder, and timm from the middle on.
SUFFIXES = (".safetensors", ".bin", ".pth")
PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
PREFERRED_BY_TIMM = (*PREFERRED[4:], *PREFERRED[:4])
VISUAL, COMPILED = "visual.", "_orig_mod."
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")
"""What torch puts before the names of a model that is shared out or compiled."""
PLAIN = {"F64", "F32", "F16", "BF16"} | {
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
}  # fmt: skip
COUNTING = {torch.int64, torch.int32, torch.bool}
"""Types of tables of places and of counters."""
FITTING = "give the --teacher that these weights are of or, in a folder, its model_cfg"
ALONE = "save its state dict alone, best by safetensors.torch.save_file, and give that file"


def weights_file(spec: TeacherSpec) -> Path | None:
    """Return the local file that weights are loaded from; None where they come by name.

    Raises:
        ConfigError: it is not there, cannot be read, or is known to be another kind of file.
    """
    name = spec.name.removeprefix(TIMM)
    if name.startswith(LOCAL):
        path = _in_folder(spec.name, Path(name.removeprefix(LOCAL)))
    elif (
        not spec.name.startswith(WITH_WEIGHTS)
        and spec.pretrained
        and Path(spec.pretrained).is_file()
    ):
        path = Path(spec.pretrained)
    else:
        return None
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); give the right to read it, or another file"
        ) from error
    if fault := stand_in(head):
        raise ConfigError(f"{path} {fault}")
    return path


def _in_folder(name: str, folder: Path) -> Path:
    found = [path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES]
    if not found:
        raise ConfigError(
            f"--teacher {name!r} has no weights beside its configuration; give a folder that holds "
            f"one file of {', '.join(SUFFIXES)}"
        )
    names = PREFERRED_BY_TIMM if name.startswith(TIMM) else PREFERRED
    preferred = [path for path in found if path.name in names]
    if preferred:
        return min(preferred, key=lambda path: names.index(path.name))
    if len(found) > 1:
        raise ConfigError(
            f"--teacher {name!r} has several files of weights, such as {found[0].name} and "
            f"{found[1].name}; call the right one {names[0]}, or leave it there alone"
        )
    return found[0]


def unloadable(path: Path, error: Exception) -> ConfigError | None:
    """Return the error of one sentence on a file that open_clip could not load.

    Args:
        path: the file.
        error: that was raised.

    Returns:
        None if it was raised before the file was read, so that the file is not to blame.
    """
    said = str(error)
    steps = [(Path(step.filename).name, step.name) for step in extract_tb(error.__traceback__)]
    if "load_checkpoint" not in {function for _, function in steps}:
        return None
    if "loading state_dict" in said:
        return of_another_architecture(path, said)
    if isinstance(error, pickle.UnpicklingError) and "Unsupported" in said:
        return ConfigError(
            f"{path} holds more than tensors, which could run code when it is loaded; if you trust "
            f"it, {ALONE}"
        )
    if isinstance(error, SafetensorError) or "serialization.py" in {file for file, _ in steps}:
        return ConfigError(
            f"{path} is a TorchScript archive; {_state_saved(path)}"
            if "TorchScript" in said
            else f"{path} is no file of weights, or is damaged or not whole ({shortened(error)}); "
            "copy or download it again"
        )
    if isinstance(error, AssertionError):
        return ConfigError(f"{path} does not fit the architecture ({shortened(error)}); {FITTING}")
    return ConfigError(f"{path} holds no state dict ({shortened(error)}); {ALONE}")


def _state_saved(path: Path) -> str:
    """Say how to save an archive's weights; OpenAI's archives hold three sizes beside them."""
    new = str(path.with_suffix(".safetensors"))
    return (
        "save its state dict, and give that file in its place: "
        f"`s = torch.jit.load({str(path)!r}, map_location='cpu').state_dict(); "
        "[s.pop(k, 0) for k in ('input_resolution', 'context_length', 'vocab_size')]; "
        f"safetensors.torch.save_file(s, {new!r})`"
    )


def of_another_architecture(path: Path, said: str) -> ConfigError:
    """Return the error on a file that torch says to lack names, or have others or other shapes."""
    nested = _nested(path)
    if nested is not None:
        return ConfigError(f"{path} has its weights under {nested!r}, beside others; {ALONE}")
    lacks = re.search(r"Missing key\(s\)[^:]*: (\"[^\"]+\")", said)
    has = re.search(r"Unexpected key\(s\)[^:]*: (\"[^\"]+\")", said)
    differs = re.search(r"size mismatch for ([^:]+): ", said)
    parts = [
        f"{word} {match[1]}"
        for word, match in (("lacks", lacks), ("has", has), ("has another shape of", differs))
        if match
    ]
    return ConfigError(f"{path} does not fit the architecture: it {' and '.join(parts)}; {FITTING}")


def _nested(path: Path) -> str | None:
    """Return the name under which a checkpoint of training has its weights, if it is one."""
    document = _lazily(path)
    for key in ("model", "ema", "model_ema", "state_dict_ema", "module", "teacher"):
        if isinstance(document.get(key), Mapping):
            return key
    return None


def _lazily(path: Path) -> Mapping[str, Any]:
    """Open a file of weights without reading its tensors, if it can be; else return nothing."""
    try:
        document = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # noqa: BLE001 - torch raises whatever a foreign file leads it to
        return {}
    return document if isinstance(document, Mapping) else {}


def require_finite(visual: nn.Module, what: str) -> None:
    """Refuse weights with a value that is NaN or infinite.

    Args:
        visual: the image tower.
        what: it was loaded from, for the message.

    Raises:
        ConfigError: there is one.
    """
    for name, tensor in visual.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigError(
                f"{what} has weights that are not finite, the first in {name!r}; its training may "
                "have diverged, so give an earlier checkpoint or download it again"
            )


class Stored(NamedTuple):
    """What a file holds under a name: of which shape, and whether as plain floats."""

    shape: tuple[int, ...]
    plain: bool


def plain_name(name: str) -> str:
    """Return a tensor's name without what torch's wrappers of a model put before it."""
    return WRAPPED.sub("", name)


def tower_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names in a file by those of the image tower, which it may hold alone."""
    plain = {plain_name(name): name for name in names}
    own = {n.removeprefix(VISUAL): name for n, name in plain.items() if n.startswith(VISUAL)}
    return own or plain


def stored_parts(path: Path) -> dict[str, Stored]:
    """Return what a file holds, by name; values are not read."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Stored(tuple(part.get_shape()), part.get_dtype() in PLAIN)
                for name, part in slices.items()
            }
    return {
        name: Stored(tuple(tensor.shape), tensor.dtype in PLAIN)
        for name, tensor in stored_tensors(path).items()
    }


def stored_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name, none where it cannot be read; best mapped, not read."""
    if path.suffix == ".safetensors":
        return load_file(path)
    document = _lazily(path)
    document = document.get("state_dict", document)
    return {n: t for n, t in document.items() if isinstance(t, torch.Tensor)}


def stored_visual(path: Path) -> dict[str, Stored]:
    """Return what a file holds of an image tower, by the tower's names; values are not read."""
    parts = stored_parts(path)
    return {own: parts[name] for own, name in tower_names(parts).items()}


def require_floats(visual: nn.Module, path: Path) -> None:
    """Refuse quantised weights, which loading would take for the weights themselves.

    Args:
        visual: the image tower.
        path: of the file that it was loaded from.

    Raises:
        ConfigError: a floating-point weight of the tower is stored as something else.
    """
    stored = stored_visual(path)
    for name, tensor in visual.state_dict().items():
        if tensor.is_floating_point() and name in stored and not stored[name].plain:
            raise _quantised(path, VISUAL + name)


def require_plain(state: Mapping[str, Any], path: Path) -> None:
    """Refuse quantised weights under whatever names a file has, before a library translates them.

    Args:
        state: what the file holds, by name.
        path: of the file.

    Raises:
        ConfigError: a tensor is neither of plain floats nor a table of places or a counter.
    """
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.dtype not in PLAIN | COUNTING:
            raise _quantised(path, name)


def _quantised(path: Path, name: str) -> ConfigError:
    return ConfigError(
        f"{path} holds {name!r} quantised, which is not supported; give the weights in float32, "
        "float16 or bfloat16"
    )
