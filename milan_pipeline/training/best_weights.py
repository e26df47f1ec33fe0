"""Whose best weights a run folder holds, where it is scored on one set of images after another."""

from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.provenance.identity import short_fingerprint
from milan_pipeline.storage.checksums import SUFFIX
from milan_pipeline.training.evaluations import BEST, Evaluations


def name_of_others(val: str) -> str:
    """Return the name of the best weights on images that are not today's, by their fingerprint."""
    return f"{BEST}-{short_fingerprint(val)}"


def take_up_best(folder: Path, evaluations: Evaluations) -> None:
    """Have the weights named `best` be those on today's images; there may be none yet.

    Each set of images has its own best weights, which cannot be made again once their checkpoint is
    gone. Those on other images lie beside as `best-FINGERPRINT`, and come back with their images.
    `best` is of the images that were scored last. A call that was cut short may be repeated.

    Args:
        folder: of the run.
        evaluations: its scores.
    """
    owner, today = evaluations.last_scored(), evaluations.val
    if owner is not None and owner != today:
        _rename(folder, BEST, name_of_others(owner), replace=False)  # may be there, if cut short
        evaluations.come_last()
    _rename(folder, name_of_others(today), BEST, replace=True)


def _rename(folder: Path, name: str, new: str, *, replace: bool) -> None:
    """Rename the weights, their description, and the list of both files' hashes."""
    for ending in (".safetensors", ".json", SUFFIX):
        here, there = folder / f"{name}{ending}", folder / f"{new}{ending}"
        if not here.exists() or (there.exists() and not replace):
            continue
        if ending == SUFFIX:  # it names the files
            text = here.read_text().replace(f"  {name}.", f"  {new}.")
            storage.put_bytes(str(there), text.encode())
            here.unlink()
        else:
            here.replace(there)
