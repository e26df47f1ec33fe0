"""Tells what kind of encoder `--encoder` names, without loading or importing anything."""

from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.errors import MismatchError
from milan_pipeline.provenance.run_state import state_of

KINDS = ("pixels", "open_clip", "timm")
FILES = "files"


def kind_of(spec: str) -> tuple[str, str]:
    """Return a spec's kind, and what it names within it.

    Args:
        spec: `pixels`, `pixels:SIZE`, `open_clip:MODEL/TAG`, `timm:NAME`, a bare NAME of timm, the
            path or URL of a `.safetensors` or that of a run folder. A path wins over a bare name.

    Returns:
        One of `KINDS` and what follows its colon, or `FILES` and the spec.
    """
    kind, _, rest = spec.partition(":")
    if kind in KINDS:
        return kind, rest
    path = "/" in spec or spec.endswith(".safetensors") or Path(spec).exists()
    return (FILES if path else "timm"), spec


def is_named(spec: str) -> bool:
    """Tell whether an encoder is given by name: it is no file, and no folder to write into."""
    return kind_of(spec)[0] != FILES


def require_done(spec: str, *, allow_unfinished: bool = False) -> None:
    """Refuse the encoder of a run that is not done, unless that is allowed.

    A name or an exported encoder has no state, and is accepted.

    Raises:
        MismatchError: the run is not done.
    """
    if allow_unfinished or is_named(spec):
        return
    folder = storage.folder_of(spec) if spec.endswith(".safetensors") else spec
    state = state_of(folder)
    if state not in (None, "done"):
        raise MismatchError(f"the run {folder} is {state!r}; finish it or --allow-unfinished")
