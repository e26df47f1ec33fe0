"""PHI-S beside target shards: fitted to targets of their store, and read without it.

The arrays lie in a file of their own. The manifest holds its hash, and the hash of what
the sample was drawn from.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import safetensors
import safetensors.torch
import torch

from milan_pipeline import storage
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.core.file_kinds import HEAD, explained
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.schema import Count, DocumentError, conforming
from milan_pipeline.errors import ConfigError, DataError, MissingDataError
from milan_pipeline.pretraining.phi_s import PhiS, fit_phi_s
from milan_pipeline.provenance.identity import Identity, content_hash, recorded_targets
from milan_pipeline.targets.codec_sample import stored_tokens
from milan_pipeline.targets.units import AnyMark, Unit, unit_sha256

PHI_S = "phi_s"
"""What the manifest calls it."""
PHI_S_FILE = "phi-s.safetensors"
IMAGES_AT_ONCE = 32


class Stated(TypedDict):
    """What a manifest says of the file."""

    sha256: str
    sample: str
    tokens: Count


def sample_hash(identity: Identity, units: Iterable[tuple[Unit, AnyMark]]) -> str:
    """Hash what a sample depends on: the shards' identity, and the store's units of the first view.

    Args:
        identity: of the shards.
        units: of the store, with their marks.
    """
    first = {unit.path: unit_sha256(mark) for unit, mark in units if unit.view == 0}
    return content_hash({"identity_hash": content_hash(identity), "units": first})


def write_phi_s(
    folder: str,
    *,
    store: str,
    units: Sequence[tuple[Unit, AnyMark]],
    source: Codec,
    target: Codec,
    patches: int,
    sample: str,
    stop: StopRequest,
) -> dict[str, Any]:
    """Fit PHI-S to targets as shards will give them, and write it before their manifest.

    The sample is chosen as codecs choose theirs: of at most 1,024 images of the first view, the
    first by the hashes of their keys, at most 65,536 patches; and CLS in proportion.

    Args:
        folder: of the target shards.
        store: their store.
        units: of the store, finished, with their marks.
        source: the store's codec.
        target: the shards' codec.
        patches: of a target.
        sample: `sample_hash` of shards and units.
        stop: asked before each unit of the sample.

    Returns:
        What the manifest is to say of it.

    Raises:
        ConfigError: there is no Hadamard matrix of the targets' width.
        DataError: there are no targets, they are damaged, or not finite.
        InterruptedRunError: a stop was asked for.
        StorageError: the store cannot be read, or the folder cannot be written to.
    """
    first = [(unit, mark) for unit, mark in units if unit.view == 0]
    if not any(mark.n for _, mark in first):
        raise DataError(f"{store} has no target in its first view to fit PHI-S to; extract some")
    tokens_nMD = stored_tokens(store, first, source, stop)
    if target.spec != source.spec:
        parts = torch.split(tokens_nMD, IMAGES_AT_ONCE)
        tokens_nMD = torch.cat([target.decode(*target.encode(part)) for part in parts])
    tokens_TD = in_proportion(tokens_nMD, patches)
    fitted = fit_phi_s(tokens_TD)
    data = safetensors.torch.save({"mean": fitted.mean_D, "matrix": fitted.matrix_DD})
    storage.put_bytes(storage.join(folder, PHI_S_FILE), data)
    sha256 = hashlib.sha256(data).hexdigest()
    return {"sha256": sha256, "sample": sample, "tokens": len(tokens_TD)}


def in_proportion(tokens_nMD: torch.Tensor, patches: int) -> torch.Tensor:
    """Return the tokens (T, D) of a sample, with as large a share of CLS as whole targets have.

    Args:
        tokens_nMD: CLS of each image, and some of its patches.
        patches: how many an image has.
    """
    cls_nD, patches_nMD = tokens_nMD[:, 0], tokens_nMD[:, 1:]
    images = round(len(cls_nD) * patches_nMD.shape[1] / patches)
    # Evenly spaced: images lie in the order of their shards, which may be that of classes.
    rows = torch.arange(images) * len(cls_nD) // max(1, images)
    return torch.cat([cls_nD[rows], patches_nMD.flatten(0, 1)])


def stated_phi_s(common: Mapping[str, Any], folder: str) -> Stated | None:
    """Return what the manifest of target shards says of PHI-S; None if nothing.

    Raises:
        DataError: it is damaged.
    """
    if PHI_S not in common:
        return None
    try:
        return conforming(common[PHI_S], Stated)
    except DocumentError as error:
        raise DataError(
            f"the manifest of {folder} is damaged ({error}); pack the targets again"
        ) from error


def has_file(folder: str, stated: Stated) -> bool:
    """Tell whether the file of a folder is there, as it was stated."""
    try:
        data = storage.read_bytes(storage.join(folder, PHI_S_FILE))
    except MissingDataError:
        return False
    return hashlib.sha256(data).hexdigest() == stated["sha256"]


def read_phi_s(folder: str, common: Mapping[str, Any]) -> PhiS:
    """Read PHI-S of target shards.

    Raises:
        ConfigError: it was not fitted.
        DataError: it is missing or damaged.
    """
    stated = stated_phi_s(common, folder)
    again = f"run `milan-pipeline pack-targets --phi-s` into {folder}"
    if stated is None:
        raise ConfigError(
            f"--target-norm phi-s needs statistics that {folder} does not have; {again}, which "
            "keeps its shards"
        )
    place = storage.join(folder, PHI_S_FILE)
    try:
        data = storage.read_bytes(place)
    except MissingDataError as error:
        raise DataError(f"{place} is missing; {again} again") from error
    if hashlib.sha256(data).hexdigest() != stated["sha256"]:
        otherwise = f"is damaged, as its sha256 is another; copy it again, or {again}"
        raise DataError(explained(place, data[:HEAD], otherwise))
    arrays = safetensors.torch.load(data)
    return PhiS(arrays["mean"], arrays["matrix"])


def keep_phi_s(run: Path, by_teacher: Mapping[str, PhiS]) -> None:
    """Write PHI-S of each teacher into a run's folder, where it turns predictions back."""
    arrays = {
        f"{name}/{part}": tensor.cpu()
        for name, fitted in by_teacher.items()
        for part, tensor in (("mean", fitted.mean_D), ("matrix", fitted.matrix_DD))
    }
    storage.put_bytes(str(run / PHI_S_FILE), safetensors.torch.save(arrays))


def kept_phi_s(run: Path, inputs: Mapping[str, Any]) -> list[PhiS]:
    """Return PHI-S of the teachers of a run, in the order of its heads.

    A run whose record has none may have the file of a run that was stopped before it began.

    Args:
        run: its folder.
        inputs: of its record.

    Returns:
        An empty list if the record has none.

    Raises:
        DataError: the file is missing or damaged.
    """
    if not any(PHI_S in part for part in recorded_targets(inputs).values()):
        return []
    place = run / PHI_S_FILE
    try:
        arrays = safetensors.torch.load(storage.read_bytes(str(place)))
        names = sorted(name.rpartition("/")[0] for name in arrays if name.endswith("/mean"))
        return [PhiS(arrays[f"{name}/mean"], arrays[f"{name}/matrix"]) for name in names]
    except MissingDataError as error:
        raise DataError(f"{place} is missing; copy the run's folder again") from error
    except (safetensors.SafetensorError, KeyError) as error:
        raise DataError(f"{place} is damaged ({error}); copy the run's folder again") from error
