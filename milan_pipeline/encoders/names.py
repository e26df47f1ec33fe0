"""Tells what kind of encoder `--encoder` names, without loading or importing anything heavy."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError
from milan_pipeline.models.timm_names import is_model
from milan_pipeline.provenance.run_state import state_of
from milan_pipeline.teacher.sources.known_names import require_teacher
from milan_pipeline.teacher.spec import HUB, LOCAL, TeacherSpec

KINDS = ("pixels", "open_clip", "timm")
FILES = "files"
IN_PLACE = "open_clip:MODEL/FILE, or open_clip:local-dir:FOLDER"


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


def require_there(spec: str) -> None:
    """Refuse an encoder of which a glance tells that there is none.

    Raises:
        MissingDataError: no file or folder is there, or timm has no such model.
        ConfigError: open_clip has no such model or weights.
    """
    kind, rest = kind_of(spec)
    if kind == "timm":
        require_timm_name(rest)
    elif kind == "open_clip":
        with as_encoder(rest):
            require_teacher(clip_spec(rest))
    elif kind == FILES and (path := storage.local_path(spec)) is not None and not path.exists():
        raise MissingDataError(of_a_hub(spec) or f"{spec} does not exist; check the path")


def require_timm_name(name: str) -> None:
    """Refuse what is no model of timm; its tag is not looked at.

    Raises:
        MissingDataError: timm has no model of that name.
    """
    if ":" in name or "/" in name or not is_model(name.partition(".")[0]):
        raise MissingDataError(
            f"--encoder {name!r} is neither a run folder, nor a .safetensors, nor a name that timm "
            "knows; `timm.list_models('vit*')` names some"
        )


def of_a_hub(place: str) -> str | None:
    """Say how a model is given that a hub has under the name of a place, if it may be meant."""
    owner, _, name = place.rpartition("/")
    if owner.rpartition(":")[2] == "timm" and is_model(name.partition(".")[0]):
        return f"{place} does not exist; timm's own models are given as --encoder timm:{name}"
    if place.startswith((LOCAL, HUB)):
        return f"--encoder {place} lacks open_clip: before it; give --encoder open_clip:{place}"
    local = storage.local_path(place)
    if local is None or local.exists() or place.count("/") != 1 or place.startswith("/"):
        return None
    return (
        f"{place} does not exist; check the path, or give a published model as timm:NAME or "
        "open_clip:MODEL/TAG"
    )


def clip_spec(rest: str) -> TeacherSpec:
    """Return what open_clip calls a CLIP, and the tag or file of its weights; no prior is read.

    Args:
        rest: of a spec, after `open_clip:`.

    Raises:
        ConfigError: it names no weights.
    """
    if rest.startswith(("local-dir:", "hf-hub:")):
        return TeacherSpec(name=rest, prior="uniform")
    name, _, tag = rest.partition("/")
    if not (name and tag):
        raise ConfigError(
            f"--encoder 'open_clip:{rest}' does not name a CLIP and its weights; write "
            "open_clip:MODEL/TAG, for example open_clip:ViT-B-16/openai, or MODEL/FILE"
        )
    return TeacherSpec(name=name, pretrained=tag, prior="uniform")


@contextlib.contextmanager
def as_encoder(rest: str) -> Iterator[None]:
    """Have errors of a teacher inside the block name the encoder.

    Raises:
        ConfigError: what was raised, in other words.
    """
    try:
        yield
    except ConfigError as error:
        spec = clip_spec(rest)
        said = (
            str(error)
            .replace(f" with --pretrained {spec.pretrained!r}", "")
            .replace(f"--teacher {spec.name!r}", f"--encoder 'open_clip:{rest}'")
        )
        said = said.replace("--pretrained FILE, or --teacher local-dir:FOLDER", IN_PLACE)
        raise ConfigError(said.replace("--teacher", "open_clip:MODEL")) from error
