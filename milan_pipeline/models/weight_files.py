"""Files of weights: ours, each with a `.json` that describes the model, and other people's.

The `.json` says how timm makes the model again and which pixels the model takes. A checkpoint of
other people is read without running any code that is pickled in it.
"""

import argparse
import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NotRequired, TypedDict

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from timm.models import VisionTransformer
from torch import Tensor

from milan_pipeline import storage
from milan_pipeline.core.file_kinds import HEAD, stand_in
from milan_pipeline.core.schema import DocumentError, conforming, parsed
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.storage.checksums import put_with_sums, read_checked

ENCODER, EMA_ENCODER = "encoder.safetensors", "encoder-ema.safetensors"
"""In a run's folder, each with its description in the `.json` beside it."""
Mean = Annotated[float, msgspec.Meta(ge=0, le=1)]
Deviation = Annotated[float, msgspec.Meta(gt=0, le=1)]
Means = tuple[Mean, Mean, Mean]
Deviations = tuple[Deviation, Deviation, Deviation]


class Arguments(TypedDict):
    """Of `timm.create_model`; any others may be there."""

    model_name: str


class EncoderDescription(TypedDict):
    """The fields of any description that are used, whatever the weights are of."""

    timm: Arguments
    mean: Means
    std: Deviations
    teacher_license: NotRequired[str]


def read_document(url: str, kind: type[Any], *, what: str, remedy: str) -> dict[str, Any]:
    """Read a description, checked against its hash.

    Args:
        url: of the `.json`.
        kind: what must be in it.
        what: it must describe, for the message.
        remedy: for what is damaged.

    Raises:
        MissingDataError: it is not there.
        DataError: it says something else.
    """
    data = read_checked(url)
    _require_itself(url, data[:HEAD])
    try:
        document = parsed(data, dict[str, Any])
        conforming(document, kind)
    except DocumentError as error:
        raise DataError(f"{url} describes no {what} ({error}); {remedy}") from error
    return document


def read_encoder_description(url: str) -> dict[str, Any]:
    """Read `encoder.json`: `timm`, the arguments of `create_model`, and the pixels' mean and std.

    `teacher_license` is there where the teacher had one.

    Raises:
        MissingDataError: it is not there.
        DataError: it is damaged.
    """
    remedy = "train, import or export it again"
    try:
        document = read_document(url, EncoderDescription, what="encoder", remedy=remedy)
    except MissingDataError as error:
        raise MissingDataError(
            f"{url} does not exist; run the command that trained or imported the encoder again, "
            "which writes it, or check the path"
        ) from error
    if "license" in document:  # as encoders were described at first
        document["teacher_license"] = document["license"]
    return {name: document[name] for name in EncoderDescription.__annotations__ if name in document}


PICKLED = (".pth", ".pt", ".bin")
NESTS = ("model", "state_dict", "module", "teacher")
"""Of MAE, timm and Lightning, of DeepSpeed, and the one that DINO scores."""
DEEPEST = 2  # one within the other
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # float32 holds the others unchanged


def read_weights(url: str) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a checkpoint.

    They may lie under one of `NESTS`, and all their names may begin with `module.` or
    `_orig_mod.`. Of pickled objects only tensors, plain containers and the
    `argparse.Namespace` of MAE-like checkpoints are allowed.

    Args:
        url: of a .safetensors, .pth, .pt or .bin file.

    Returns:
        float tensors by name, and the sha256 of the file.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is damaged, needs pickle, or holds other than plain finite tensors.
    """
    with storage.open_read(url) as stream:
        safe = _is_safe(url)
        _require_itself(url, stream.read(HEAD))
        stream.seek(0)
        sha256 = _sha256(stream)
        stream.seek(0)
        document = (
            _loaded(url, stream.read(), "fetch it again") if safe else _load_pickled(url, stream)
        )
    return _without_prefix(_named_tensors(url, document)), sha256


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 24):
        digest.update(chunk)
    return digest.hexdigest()


def _is_safe(url: str) -> bool:
    if not url.endswith((".safetensors", *PICKLED)):
        raise DataError(
            f"{url} is no .safetensors, .pth, .pt or .bin file; give the checkpoint in one of them"
        )
    return url.endswith(".safetensors")


def plain_tensors(url: str, data: bytes, *, remedy: str) -> dict[str, Tensor]:
    """Read the weights of a model that timm loads.

    Args:
        url: of the .safetensors, for messages.
        data: its bytes.
        remedy: for what is damaged.

    Returns:
        Tensors by name, of a floating-point type or counters.

    Raises:
        DataError: it is another kind of file or damaged, or its weights are quantised or not
            finite.
    """
    _require_itself(url, data[:HEAD])
    tensors = _loaded(url, data, remedy)
    for name, tensor in tensors.items():
        _require_plain(url, name, tensor, (*FLOATS, torch.float64, torch.int64))
    return tensors


def _require_itself(url: str, head: bytes) -> None:
    if kind := stand_in(head):
        raise DataError(f"{url} {kind}")


def _loaded(url: str, data: bytes, remedy: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise DataError(f"{url} is damaged ({error}); {remedy}") from error


def _load_pickled(url: str, stream: BinaryIO) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unusual pickle protocol either loads or fails
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{url} cannot be loaded without running the code pickled in it, or is damaged; "
            "save its weights alone, best as .safetensors, and give that file"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{url} is no checkpoint of torch ({reason}); fetch it again") from error


def _named_tensors(url: str, document: Any) -> dict[str, Tensor]:
    """Return the mapping of names to tensors in a checkpoint, wherever it nests."""
    for _ in range(DEEPEST):
        nested = [document.get(name) for name in NESTS] if isinstance(document, Mapping) else []
        document = next((nest for nest in nested if isinstance(nest, Mapping)), document)
    if not (isinstance(document, Mapping) and document):
        raise DataError(f"{url} holds no tensors by name; give a state dict, best as .safetensors")
    for name, tensor in document.items():
        _require_plain(url, name, tensor, FLOATS)
    return dict(document)


def _require_plain(url: str, name: Any, tensor: Any, types: Sequence[torch.dtype]) -> None:
    if not (isinstance(name, str) and isinstance(tensor, Tensor) and tensor.dtype in types):
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise DataError(
            f"{url} holds {name!r} of type {kind} among its weights; give a state dict of "
            "float32, float16 or bfloat16 tensors"
        )
    if fault := _fault(tensor):
        raise DataError(f"{url} holds {name!r}, which {fault}; save its weights anew")


def _fault(tensor: Tensor) -> str:
    """Say why a tensor cannot be weights; nothing if it can."""
    if tensor.layout != torch.strided:
        return f"is of the layout {tensor.layout}"
    if tensor.device.type != "cpu":
        return f"has no values (it is on the device {tensor.device})"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "has more values than were saved of it"  # strides of 0 may claim any size
    return "" if torch.isfinite(tensor).all() else "has a value that is not finite"


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            return _without_prefix({n.removeprefix(prefix): w for n, w in weights.items()})
    return weights


def export_encoder(
    run: Path,
    encoder: VisionTransformer,
    arguments: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    name: str = "encoder",
    licence: str | None = None,
) -> None:
    """Write `encoder.safetensors`, `encoder.json` and their hashes, `encoder.sha256`.

    Args:
        run: the run folder.
        encoder: its weights are written under timm's names.
        arguments: what `timm.create_model` needs to make the architecture again.
        mean: of the pixels that it was trained on, in [0, 1].
        std: likewise.
        name: of the files, without their endings.
        licence: of the teacher that it learnt from, if that is known.
    """
    description = {"timm": dict(arguments), "mean": list(mean), "std": list(std)}
    if licence is not None:
        description["teacher_license"] = licence
    put_weights(run, name, encoder.state_dict(), description)


def put_weights(
    run: Path, name: str, state: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write `NAME.safetensors`, `NAME.json` and their hashes, `NAME.sha256`, each atomically.

    Args:
        run: the run folder.
        name: of the files.
        state: weights under timm's names.
        description: as `encoder.json` has it, at least.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    files = {
        f"{name}.safetensors": safetensors.torch.save(weights),
        f"{name}.json": json_bytes(description),
    }
    put_with_sums(str(run), files)


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as the JSON files beside weights have it."""
    return (json.dumps(document, indent=1) + "\n").encode()
