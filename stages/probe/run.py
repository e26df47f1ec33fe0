"""Runs `probe`: opens the inputs, gets the features, scores them, writes scores and record."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from milan_pipeline import storage
from milan_pipeline.core.console import bytes_text, say, say_nothing_to_do, warn
from milan_pipeline.core.devices import pick_device
from milan_pipeline.core.interrupts import StopRequest, stop_request
from milan_pipeline.data.class_names import require_same_names
from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.encoders.load import fingerprint, image_size_of, load_encoder
from milan_pipeline.encoders.names import require_done
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.class_coverage import warnings_of_classes
from milan_pipeline.evaluate.duplicate_images import copies_of_shards
from milan_pipeline.evaluate.evaluation_view import default_crop_pct
from milan_pipeline.evaluate.intervals import wilson_of
from milan_pipeline.evaluate.per_image import ANSWERS, NAMES
from milan_pipeline.evaluate.probe.feature_cache import (
    FeatureCache,
    FeatureSet,
    View,
    features_url,
    is_cached,
)
from milan_pipeline.evaluate.probe.features import Labels
from milan_pipeline.evaluate.probe.scoring import Sets, answers_npy, classify, metrics_of
from milan_pipeline.evaluate.scores_file import (
    Result,
    has_scores,
    known_metrics,
    require_own_scores,
    write_stage_scores,
)
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.reporter import reporting
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.stages.probe import scorers
from milan_pipeline.stages.probe.command import Probe
from milan_pipeline.stages.probe.kept import kept_of
from milan_pipeline.stages.probe.scorers import attend, attentive_of, classifiers_of, scored_view
from milan_pipeline.stages.shared.checking import tell_of_random_weights
from milan_pipeline.stages.shared.dry_run import say_bytes_to_write
from milan_pipeline.stages.shared.scores import scores_table, write_files
from milan_pipeline.stages.shared.training import training_precision

SCORES_BYTES = 3000  # of scores and record, if few images are unreadable
ANSWER_BYTES = 8


def run(config: Probe) -> None:
    """Score the encoder and write scores.json, unless that was done before."""
    train, test = _inputs(config)
    config = _settled(config)
    record = _record(config, train, test)
    if is_done(config, record):
        return
    _warn_of_copies(train, test)
    device = str(pick_device(config.device))
    record.begin()
    with stop_request() as stop, reporting(config.folder, "probe", stop):
        encoder = functools.cache(functools.partial(_load, config, device))
        sets = _sets(config, record, (train, test), encoder, stop)
        names = train.common.get("classes") or test.common.get("classes") or []
        kept, classifiers = kept_of(config, record, sets), classifiers_of(config, device)
        answers, details = kept.classified(lambda: classify(sets, config.pool, classifiers))
        attended, choice = attend(config, sets, encoder, stop, kept)
        details |= choice | {"class_names": names}
        result = _write(config, record, sets, answers | attended, details)
    counts = {name: result.extras[name] for name in ("train", "test")}
    record.finish(counts | {"skipped": len(result.extras["bad"])})
    kept.remove()
    found = {"metrics": result.metrics, "intervals": result.intervals}
    facts = {**found, **counts, "skipped": len(result.extras["bad"])}
    say(_table(result), out=config.folder, encoder=result.name, **facts)


def dry_run(config: Probe) -> None:
    """Say how many images would be encoded and what the scores would take."""
    train, test = _inputs(config)
    config = _settled(config)
    record = _record(config, train, test)
    if is_done(config, record):
        return
    _warn_of_copies(train, test)
    identity = encoder_identity(config, record)
    left = {
        name: sum(
            not is_cached(features_url(config.features_folder, identity, manifest, view))
            for view in views
        )
        * manifest.samples
        for name, manifest, views in (
            ("train", train, dict.fromkeys([scored_view(config), *_train_views(config)])),
            ("test", test, [scored_view(config)]),
        )
    }
    said = f"images to encode: {left['train']} to learn from, {left['test']} to score on"
    again = ""
    if config.attentive:
        passes = attentive_of(config).passes
        again = "; with --attentive all of them once more or, where patches of --train need more "
        again += f"than --attentive-memory, about {passes} times"
    say(said + again, images_to_encode=left)
    trained = config.attentive + sum(name != "none" for name in config.linear)
    columns = 1 + len(config.ks) + trained
    size = SCORES_BYTES + ANSWER_BYTES * columns * test.samples
    text = f"about {bytes_text(size)} and, for each image to encode, 8 times the encoder's width"
    say_bytes_to_write(config.folder, text, size)


def _settled(config: Probe) -> Probe:
    """Fill in what is left to the encoder or the machine; refuse an encoder that is not there."""
    size = image_size_of(config.encoder, random_init=config.random_init)
    tell_of_random_weights(config.encoder, random_init=config.random_init)
    scorers.warn_of_idle_linear(config)
    return dataclasses.replace(
        config,
        crop_pct=default_crop_pct(size) if config.crop_pct is None else config.crop_pct,
        k=config.ks,
        temperature=config.sharpness,
        precision=settled_precision(config),
    )


def settled_precision(config: Probe) -> str:
    """Return the precision that is meant by "auto", or the one that was given."""
    chosen = config.precision
    return training_precision(chosen, pick_device(config.device)) if chosen == "auto" else chosen


def _train_views(config: Probe) -> list[View]:
    """List the views that the linear classifiers are trained on."""
    trained = {"official", "sweep"} & set(config.linear)
    if not trained or config.train_views == 1:
        return [scored_view(config)]
    return [View(number=number, seed=config.seed) for number in range(config.train_views)]


def _inputs(config: Probe) -> tuple[Manifest, Manifest]:
    """Load both manifests; refuse a run that is not done, and sets whose classes differ."""
    require_done(config.encoder, allow_unfinished=config.allow_unfinished)
    train = load_manifest(config.train, kind="images")
    test = load_manifest(config.val, kind="images")
    require_same_names(
        train.common.get("classes", ()),
        test.common.get("classes", ()),
        train_place=f"--train {config.train}",
        test_place=f"--val {config.val}",
    )
    names = train.common.get("classes", ())
    if len(names) == 1:
        raise DataError(
            f"--train {config.train} has only images of class 0 ({names[0]!r}); pack a folder "
            "with a sub-folder for each of two classes or more"
        )
    return train, test


def _warn_of_copies(train: Manifest, test: Manifest) -> None:
    """Say so where images to score on are among those to learn from, as far as that is known."""
    if train.sha256 == test.sha256:
        warn(
            "--val has the images of --train, so the scores only show what was memorised; score "
            "on images that are held out"
        )
    elif found := copies_of_shards(train, test):
        warn(
            f"{found} of the {test.samples} images of --val are also in --train, so the scores "
            "only show what was memorised; score on images that are held out"
        )


def _record(config: Probe, train: Manifest, test: Manifest) -> StageRecord:
    return StageRecord(
        url=storage.join(config.folder, "probe.json"),
        stage="probe",
        config=config,
        inputs={
            "encoder": fingerprint(config.encoder, random_init=config.random_init),
            "train": train.sha256,
            "test": test.sha256,
        },
    )


def encoder_identity(config: Probe, record: StageRecord) -> dict[str, Any]:
    """Return what the features depend on apart from images and views."""
    drawn = {"seed": config.seed} if config.random_init else {}
    rounded = {} if config.precision == "fp32" else {"precision": config.precision}
    known = {"weights": record.inputs["encoder"], "random_init": config.random_init}
    return known | drawn | rounded


def is_done(config: Probe, record: StageRecord) -> bool:
    """Tell whether these scores are there already and may stay; if so, say it."""
    require_own_scores(record)
    done = not config.overwrite and record.previous_state() == "done"
    done = done and has_scores(config.folder)
    if done:
        say_nothing_to_do(config.folder, "the scores are there", **known_metrics(config.folder))
    return done


def _write(
    config: Probe,
    record: StageRecord,
    sets: Sets,
    answers: dict[str, Labels],
    details: dict[str, Any],
) -> Result:
    """Write answers.npy, images.txt and scores.json."""
    truth_N, bad = sets.test.labels_N, [*sets.train.bad, *sets.test.bad]
    files = {ANSWERS: answers_npy(answers, truth_N), NAMES: sets.test.names}
    write_files(config.folder, files)
    counts = {"train": len(sets.train.labels_N), "test": len(truth_N)}
    extras = {"pool": config.pool, **counts, "bad": bad, **details}
    metrics = metrics_of(answers, truth_N)
    extras["intervals"] = wilson_of(metrics, len(truth_N))
    return write_stage_scores(record, metrics, extras)


def _load(config: Probe, device: str) -> FrozenEncoder:
    return load_encoder(
        config.encoder,
        random_init=config.random_init,
        seed=config.seed,
        device=device,
        precision=config.precision,
    )


def _sets(
    config: Probe,
    record: StageRecord,
    manifests: tuple[Manifest, Manifest],
    encoder: Callable[[], FrozenEncoder],
    stop: StopRequest,
) -> Sets:
    """Get the features, from their folder if they are there."""
    cache = FeatureCache(
        folder=config.features_folder,
        identity=encoder_identity(config, record),
        encoder=encoder,
        batch_size=config.batch_size,
        workers=config.decoders,
        stop=stop,
    )
    train, test = (
        _within_budget(
            config, cache.get(manifest, scored_view(config), what=f"probe: {name}"), manifest
        )
        for manifest, name in zip(manifests, ("train", "test"), strict=True)
    )
    _warn_of_classes(config, train, test, manifests[0].common.get("classes", ()))
    views = _train_views(config)

    def view(number: int) -> FeatureSet:
        if views[number] == scored_view(config):
            return train
        return cache.get(manifests[0], views[number], what=f"probe: view {number}")

    return Sets(train=train, test=test, views=len(views), view=view, stop=stop)


def _warn_of_classes(
    config: Probe, train: FeatureSet, test: FeatureSet, names: Sequence[str]
) -> None:
    """Say so where the two sets differ in classes, or features tell nothing apart."""
    learnt, scored = np.unique(train.labels_N), np.unique(test.labels_N)
    places = (f"--train {config.train}", f"--val {config.val}")
    for place, found in zip(places, (train, test), strict=True):
        if found.are_alike:
            warn(
                f"all features of {place} are alike, so that any score is chance; look at the "
                "images, and at the weights of --encoder"
            )
    for text in warnings_of_classes(learnt, scored, what="image", places=places, names=names):
        warn(text)


def _within_budget(config: Probe, found: FeatureSet, manifest: Manifest) -> FeatureSet:
    """Refuse a set with too many unreadable images."""
    budget = BadImageBudget(fraction=config.max_bad_fraction, images=manifest.samples)
    for row in found.bad:
        budget.add(row["shard"], [row])
    return found


def _table(result: Result) -> str:
    counts = {name: result.extras[name] for name in ("train", "test")}
    return scores_table(result, counts | {"skipped": len(result.extras["bad"])})
