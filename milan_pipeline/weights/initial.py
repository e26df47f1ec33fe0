"""Give a student the weights of another run, or those of an encoder's file, to begin from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import VisionTransformer

from milan_pipeline.errors import MismatchError
from milan_pipeline.models.decoder import EmbeddingDecoder
from milan_pipeline.models.student import Student
from milan_pipeline.models.weight_files import ENCODER, read_encoder_description
from milan_pipeline.provenance.identity import Identity, recorded_targets
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME
from milan_pipeline.weights.run_weights import (
    ENCODER_PART,
    RunWeights,
    described_encoder,
    encoder_description,
    encoder_part,
    encoder_weights,
    read_weights,
    require_finished,
    require_student,
    student_weights,
)

OUTPUT_PART = "decoder.pred."
"""The last layer of a decoder, which is as wide as the targets."""
DECODER_PARTS = ("decoder.", "--decoder")


def is_encoder_file(given: str) -> bool:
    """Tell whether `--init` names the file of an encoder, and not a run."""
    return given.endswith(".safetensors")


def initial_weights(place: Path) -> RunWeights:
    """Read what another run may begin from.

    Args:
        place: a run's folder, of which the newest student counts or, failing that, the encoder; or
            the `.safetensors` of an encoder.

    Raises:
        MissingDataError: there is no run, or it has no weights.
        MismatchError: it is not done.
        DataError: its weights are damaged.
    """
    if is_encoder_file(place.name):
        return _as_part(read_weights(place))
    require_finished(place)
    require_student(place)
    return student_weights(place) or _as_part(encoder_weights(place))


def initialise(
    student: Student, place: Path, *, decoder_heads: int, teachers: Mapping[str, Identity]
) -> None:
    """Give the student the weights of a run: all of its own, or those of the encoder alone.

    Args:
        student: changed in place.
        place: what `--init` names; see `initial_weights`.
        decoder_heads: of the student; no shape gives the number of heads.
        teachers: identities of what the student learns, by the teacher's name; none for pixels.

    Raises:
        MismatchError: a parameter is missing or unknown, its shape differs, or the heads do; the
            first is named. Or its heads are of other teachers.
        MissingDataError, DataError: as `initial_weights` and `encoder_description` do.
    """
    weights, own = initial_weights(place).state, student.state_dict()
    alone = all(name.startswith(ENCODER_PART) for name in weights)
    if alone:
        own = {name: tensor for name, tensor in own.items() if name.startswith(ENCODER_PART)}
    here, there = ({n: f"of shape {tuple(t.shape)}" for n, t in s.items()} for s in (own, weights))
    here["--heads"] = _heads(student.encoder)
    there["--heads"] = _heads(described_encoder(_description(place)))
    record = {} if is_encoder_file(place.name) else read_record(str(place / CONFIG_NAME)) or {}
    if not alone and isinstance(student.decoder, EmbeddingDecoder):  # a linear one has no heads
        here["--decoder-heads"] = str(decoder_heads)
        there["--decoder-heads"] = str(
            record.get("content", {}).get("decoder_heads", decoder_heads)
        )
    for name in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(name, "missing"), there.get(name, "missing")
        if ours != theirs:
            raise MismatchError(
                f"--init {place} does not fit the student: {name} is {theirs} there and {ours} "
                f"here; {_remedy(place, name)}"
            )
    if not alone:
        _require_same_heads(place, record.get("inputs", {}), teachers)
    student.load_state_dict(weights, strict=not alone)


def _as_part(encoder: RunWeights) -> RunWeights:
    """Give an encoder's weights the names that they have in a student."""
    own = encoder_part(encoder.state)
    return encoder._replace(state={f"{ENCODER_PART}{name}": own[name] for name in own})


def _description(place: Path) -> dict[str, Any]:
    if is_encoder_file(place.name):
        return read_encoder_description(str(place.with_suffix(".json")))
    return encoder_description(place)


def _remedy(place: Path, name: str) -> str:
    """Say what helps where a parameter or an option differs."""
    remedy = "give the student the sizes of that run"
    if name.startswith(OUTPUT_PART):
        remedy = "give targets as wide as those of that run's teachers together"
    return remedy + (_or_encoder(place) if name.startswith(DECODER_PARTS) else "")


def _or_encoder(place: Path) -> str:
    return f", or --init {place / ENCODER} to begin from its encoder alone"


def _require_same_heads(
    place: Path, inputs: Mapping[str, Any], teachers: Mapping[str, Identity]
) -> None:
    """Refuse a decoder whose outputs, which lie side by side, belong to other teachers."""
    then = {name: part["identity"]["teacher"] for name, part in recorded_targets(inputs).items()}
    now = {name: identity["teacher"] for name, identity in teachers.items()}
    if max(len(then), len(now)) < 2:
        return
    moved = [n for n in now if then.get(n) != now[n] and now[n] in then.values()]
    if then.keys() != now.keys() or moved:
        learnt, learns = (" and ".join(names) or "a single one" for names in (then, now))
        what = f"learnt from the teachers {learnt}, and this run from {learns}"
        if then.keys() == now.keys():
            what = f"knows the teacher {moved[0]} of this run by another name"
        raise MismatchError(
            f"--init {place} {what}, so that heads would be those of other teachers; name them in "
            f"--targets as in that run{_or_encoder(place)}"
        )


def _heads(encoder: VisionTransformer) -> str:
    block: Any = encoder.blocks[0]
    return str(block.attn.num_heads)
