"""Runs `probe --dense`: remembers labelled patches, labels others by them, writes scores."""

import dataclasses
import math
from typing import Any

from milan_pipeline import storage
from milan_pipeline.cli.options import fields_from
from milan_pipeline.core.console import bytes_text, say, warn
from milan_pipeline.core.devices import pick_device
from milan_pipeline.core.interrupts import StopRequest, stop_request
from milan_pipeline.data.labelled import LabelledTable, open_labelled
from milan_pipeline.encoders.load import fingerprint, image_size_of, load_encoder
from milan_pipeline.encoders.names import require_done
from milan_pipeline.errors import ConfigError
from milan_pipeline.evaluate.dense.retrieval import Retrieval
from milan_pipeline.evaluate.dense.views import ShowView
from milan_pipeline.evaluate.dense_protocol import PROTOCOL, DenseProtocol, ignored_values
from milan_pipeline.evaluate.per_image import COUNT_BYTES
from milan_pipeline.evaluate.scores_file import Result, write_stage_scores
from milan_pipeline.evaluate.segmentation.masks import LabelConfig, Labels
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import reporting
from milan_pipeline.stages.probe.command import Probe
from milan_pipeline.stages.probe.run import SCORES_BYTES, is_done, settled_precision
from milan_pipeline.stages.shared.checking import (
    tell_of_random_weights,
    warn_of_copies,
    warn_of_equal_sets,
)
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.scores import scores_table, write_files


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """The settled options, and the images and masks to learn from and to score on."""

    config: Probe
    labels: Labels
    train: LabelledTable
    val: LabelledTable
    record: StageRecord


def run(config: Probe) -> None:
    """Score the encoder's patches and write scores.json, unless that was done before."""
    inputs = _opened(config)
    if is_done(inputs.config, inputs.record):
        return
    _warn_of_what_was_seen(inputs)
    inputs.record.begin()
    with stop_request() as stop, reporting(inputs.config.folder, "probe", stop):
        result = _scored(inputs, stop)
    counts = {name: result.extras[name] for name in ("train", "val", "skipped")}
    inputs.record.finish(counts)
    table = scores_table(result, counts)
    found = {"metrics": result.metrics, "intervals": result.intervals}
    say(table, out=inputs.config.folder, encoder=result.name, **found, **counts)


def dry_run(config: Probe) -> None:
    """Say how many images would be encoded and what the scores would take."""
    inputs = _opened(config)
    if is_done(inputs.config, inputs.record):
        return
    _warn_of_what_was_seen(inputs)
    left = {"train": inputs.train.samples, "val": inputs.val.samples}
    said = f"images to encode: {left['train']} to learn from, {left['val']} to score on"
    say(said, images_to_encode=left)
    size = SCORES_BYTES + COUNT_BYTES * (inputs.config.classes or 0) * inputs.val.samples
    say_bytes_to_write(inputs.config.folder, f"about {bytes_text(size)}", size)


def _opened(config: Probe) -> _Inputs:
    """Open encoder, images and masks, and settle what is open.

    Raises:
        ConfigError, DataError, MissingDataError: one of them cannot be used.
    """
    require_done(config.encoder, allow_unfinished=config.allow_unfinished)
    tell_of_random_weights(config.encoder, random_init=config.random_init)
    config = dataclasses.replace(
        config,
        k=config.ks,
        temperature=config.sharpness,
        precision=settled_precision(config),
    )
    train, val = (open_labelled(place, kind="mask") for place in (config.train, config.val))
    if config.memory < train.samples:
        raise ConfigError(
            f"--memory {config.memory} is fewer than the {train.samples} images of --train, each "
            "of which gives as many patches; give more, or fewer images"
        )
    record = StageRecord(
        url=storage.join(config.folder, "probe.json"),
        stage="probe",
        config=config,
        inputs={
            "encoder": fingerprint(config.encoder, random_init=config.random_init),
            "train": train.source,
            "val": val.source,
        },
    )
    return _Inputs(config, Labels(fields_from(LabelConfig, config)), train, val, record)


def _warn_of_what_was_seen(inputs: _Inputs) -> None:
    """Say so where images to score on are among those to learn from."""
    warn_of_equal_sets(inputs.train, inputs.val)
    warn_of_copies(inputs.train, inputs.val)


def _scored(inputs: _Inputs, stop: StopRequest) -> Result:
    """Remember, look up, and write scores.json."""
    config = inputs.config
    encoder = load_encoder(
        config.encoder,
        random_init=config.random_init,
        seed=config.seed,
        device=str(pick_device(config.device)),
        precision=config.precision,
    )
    how = Retrieval(
        classes=config.classes or 0,
        neighbours=config.k[0],
        temperature=config.sharpness,
        memory=config.memory,
        seed=config.seed,
        batch=config.batch_size,
        workers=config.decoders,
        stop=stop,
    )
    show = ShowView(encoder.image_size, inputs.labels)
    budgets = [
        BadImageBudget(fraction=config.max_bad_fraction, images=table.samples)
        for table in (inputs.train, inputs.val)
    ]
    memory = how.remember(encoder, inputs.train, show, budgets[0])
    kept, neighbours = len(memory.feature_ME), config.k[0]
    if neighbours > kept:
        warn(
            f"--k {neighbours} is more than the {kept} patches that are kept, all of which vote; "
            "give fewer, or a larger --memory"
        )
    unknown = memory.missing_classes()
    if unknown:
        warn(
            f"no patch that is kept of --train {config.train} holds the classes {unknown}, which "
            "can never be answered; give a larger --memory, or images of them"
        )
    scores = how.score(memory, encoder, inputs.val, show, budgets[1])
    metrics = {f"knn-{name}@{config.k[0]}": value for name, value in scores.per_cent().items()}
    notes = scores.notes()
    intervals = {f"knn-{n}@{config.k[0]}": ends for n, ends in notes.pop("intervals").items()}
    extras = {
        "train": inputs.train.samples - len(budgets[0].ledger),
        "val": scores.images,
        "skipped": sum(len(budget.ledger) for budget in budgets),
        "bad": [row for budget in budgets for row in budget.ledger.items()],
        PROTOCOL: protocol(config, kept),
        "iou": [None if math.isnan(iou) else 100 * iou for iou in scores.ious().tolist()],
        **notes,
        "intervals": intervals,
    }
    write_files(config.folder, scores.files())
    return write_stage_scores(inputs.record, metrics, extras)


def protocol(config: Probe, patches: int) -> dict[str, Any]:
    """Return the card of what mIoU depends on, beside encoder and images.

    Args:
        config: the settled options.
        patches: in the memory.
    """
    size = image_size_of(config.encoder, random_init=config.random_init)
    card = DenseProtocol(
        method="retrieval of labelled patches (arXiv 2306.01667)",
        encoder="frozen",
        features="patches after the last norm",
        resolution=f"{size} x {size} pixels",
        aspect_ratio="not kept",
        crop="none",
        stride=None,
        interpolation_of_masks="nearest",
        masks_scored_at=f"{size} x {size} pixels",
        enlargement_of_answers="bilinear, of the shares of classes",
        classes=config.classes,
        ignored=ignored_values(config.ignore_index, reduce_zero_label=config.reduce_zero_label),
        precision=config.precision,
        details={
            "neighbours": config.k[0],
            "temperature": config.temperature,
            "patches_in_memory": patches,
            "draw_of_patches": "rare classes first, as many of each image",
        },
    )
    return card.document()
