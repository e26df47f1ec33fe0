"""What a run on labelled images looks at before its first step, and what it warns of then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import note, warn
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.encoders.readers import random_weights
from milan_pipeline.evaluate.duplicate_images import copies
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.provenance.record import read_record
from milan_pipeline.stages.shared.labelled_options import LabelledOptions
from milan_pipeline.training.validation import Validation

if TYPE_CHECKING:
    from milan_pipeline.stages.shared.labelled import LabelledPlan

CHECKED = "checked.json"


def check_once(planned: "LabelledPlan[Any]", world: World, look: Callable[[], None]) -> None:
    """Look at the labels, unless an earlier part of the run has looked at the same ones.

    Args:
        planned: the run.
        world: the processes, each of which must call this.
        look: raises what is wrong with the labels.
    """
    path = planned.config.folder / "labels" / CHECKED
    sampled = planned.config.check == "sample"
    digest = content_hash({"train": planned.train.source, "val": planned.val.source})
    known = _known(path) if world.leads else {}
    if world.most(known.get(digest) in ("all", "sample" if sampled else "all")):
        return
    look()
    if world.leads:
        done = known | {digest: "sample" if sampled else "all"}
        storage.put_bytes(str(path), (json.dumps(done) + "\n").encode())


def unwritten_ledger(config: LabelledOptions, what: str, images: int) -> RunLedger:
    """Return what counts unreadable images while labels are looked at."""
    ledger = RunLedger(config.folder, what, images=images, fraction=config.max_bad_fraction)
    ledger.begin_anew()
    return ledger


def warn_of_equal_sets(train: LabelledTable, val: LabelledTable) -> None:
    """Say so where a model is scored on the very images that it learns from."""
    if train.source == val.source:
        warn(
            "--val has the images of --train, so the scores only show what was memorised; score "
            "on images that are held out"
        )


def tell_of_random_weights(encoder: str, *, random_init: bool) -> None:
    """Say so where an encoder's name stands for random weights, which nobody asked for."""
    said = None if random_init else random_weights(encoder)
    if said is not None:
        note(said)


def warn_of_other_scores(validation: Validation, place: str) -> None:
    """Say so where a run goes on with other images to score on."""
    evaluations = validation.evaluations
    other = len(evaluations.rows()) - len(evaluations.of_today())
    if other:
        warn(
            f"--val {place} has changed since {other} of the evaluations in {validation.folder}: "
            "they stay in evaluations.jsonl, and the best "
            "weights on their images are kept as best-FINGERPRINT.safetensors; best.safetensors "
            "will be the best on today's images"
        )


def warn_of_other_parts(planned: "LabelledPlan[Any]", world: World) -> None:
    """Say so where a run goes on with other micro batches, by which blocks and norms work."""
    previous = read_record(planned.record.url)
    if previous is None:
        return
    own = planned.order.batch // world.size
    now, then = planned.config.micro_batch, int(previous["config"]["micro_batch"])
    if min(now, own) != min(then, own):
        warn(
            f"--micro-batch {now} is not what {planned.config.out} was trained with before, "
            f"{then}: what is dropped and normed in a forward pass depends on it, so that the "
            f"weights will differ from those of a run with --micro-batch {then} throughout"
        )


def warn_of_copies(train: LabelledTable, val: LabelledTable) -> None:
    """Say so where images to score on are copies of images to learn from."""
    if train.source == val.source:
        return  # which `warn_of_equal_sets` says
    found, looked = copies(train, val)
    if found:
        warn(
            f"{found} of the {looked} images of --val that were compared are also in --train, so "
            "the scores only show what was memorised; score on images that are held out"
        )


def _known(path: Path) -> dict[str, str]:
    """Return what was looked at: "all" or "sample", by the hash of the two sets."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return {}  # then it is looked at again
