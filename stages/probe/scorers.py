"""What scores the features of `probe`, as its options say."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from milan_pipeline.core.console import bytes_text, warn
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.probe.attentive import Choice, attentive_answers, choose_rate
from milan_pipeline.evaluate.probe.feature_cache import FeatureSet, View
from milan_pipeline.evaluate.probe.features import Labels
from milan_pipeline.evaluate.probe.patches import PatchSource
from milan_pipeline.evaluate.probe.protocols import Attentive, OfficialLinear, Sweep
from milan_pipeline.evaluate.probe.scoring import Classifiers, Sets
from milan_pipeline.stages.probe.command import Probe
from milan_pipeline.stages.probe.kept import Kept
from milan_pipeline.stages.shared.training_notes import warn_of_idle

GB = 10**9


def classifiers_of(config: Probe, device: str) -> Classifiers:
    """Return the classifiers of pooled features; the options are settled."""
    official = OfficialLinear(
        epochs=config.linear_epochs,
        warmup_epochs=config.linear_warmup_epochs,
        batch=config.linear_batch,
        base_rate=config.linear_lr,
        seed=config.seed,
        device=device,
    )
    sweep = Sweep(
        rates=config.sweep_lr,
        steps=config.sweep_steps,
        batch=config.sweep_batch,
        seed=config.seed,
        device=device,
    )
    return Classifiers(
        ks=config.k,
        temperature=config.sharpness,
        logistic="logistic" in config.linear,
        official=official if "official" in config.linear else None,
        sweep=sweep if "sweep" in config.linear else None,
    )


def warn_of_idle_linear(config: Probe) -> None:
    """Say which options of linear classifiers change nothing where these are not asked for."""
    if "official" not in config.linear:
        official = ("linear_epochs", "linear_warmup_epochs", "linear_batch", "linear_lr")
        warn_of_idle(official, config, "without --linear official")
    if "sweep" not in config.linear:
        sweep = ("sweep_steps", "sweep_batch", "sweep_lr")
        warn_of_idle(sweep, config, "without --linear sweep")
    if not {"official", "sweep"} & set(config.linear):
        warn_of_idle(["train_views"], config, "without --linear official or sweep")


def scored_view(config: Probe) -> View:
    """Return the evaluation view, which is scored and which k-NN takes its neighbours from."""
    return View() if config.crop_pct is None else View(crop_pct=config.crop_pct)


def attentive_of(config: Probe) -> Attentive:
    """Return how the attentive probe is trained."""
    return Attentive(
        rates=config.attentive_lr,
        epochs=config.attentive_epochs,
        batch=config.attentive_batch,
        seed=config.seed,
    )


def attend(
    config: Probe,
    sets: Sets,
    encoder: Callable[[], FrozenEncoder],
    stop: StopRequest,
    kept: Kept,
) -> tuple[dict[str, Labels], dict[str, Any]]:
    """Return the answers of the attentive probe, and details for `scores.json`; both by its name.

    Args:
        config: the settled options.
        sets: of the same images, which say which of them can be decoded.
        encoder: loads what encodes them.
        stop: checked before each batch.
        kept: takes the chosen rate, and has that of a call that was stopped.

    Raises:
        DataError: see `attentive_answers`.
        InterruptedRunError: a stop was asked for.
    """
    if not config.attentive:
        return {}, {}
    protocol = attentive_of(config)

    def source(place: str, found: FeatureSet, what: str, memory: float) -> PatchSource:
        images = PatchSource(
            table=open_labelled(place, kind="class"),
            bad=found.bad,
            encoder=encoder,
            crop_pct=scored_view(config).crop_pct,
            batch_size=config.batch_size,
            workers=config.decoders,
            memory=memory,
            stop=stop,
            what=f"probe: patches of {what}",
        )
        if not np.array_equal(images.labels, found.labels_N):
            raise DataError(
                f"{place} has other labels in its index than in its shards; make the index again "
                f"with `milan-pipeline index {place} --overwrite`"
            )
        return images

    train = source(config.train, sets.train, "train", config.attentive_memory * GB)
    if not train.is_kept:
        warn(
            f"patches of --train need {bytes_text(train.feature_bytes)}, and --attentive-memory is "
            f"{config.attentive_memory:g} GB: its images are encoded about {protocol.passes} times,"
            " and of a run that is stopped meanwhile, only the chosen rate is kept"
        )
    # Images that are scored are read once: nothing of them is kept.
    test = source(config.val, sets.test, "val", 0.0)
    known = kept.read("choice")
    choice = choose_rate(train, protocol) if known is None else Choice(**known)
    kept.add("choice", dataclasses.asdict(choice))
    answers_N, _ = attentive_answers(train, test, protocol, choice)
    details = dataclasses.asdict(choice) | {"batch": protocol.batch_of(len(train.labels))}
    return {"attentive": answers_N}, {"attentive": details}
