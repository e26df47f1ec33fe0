"""`milan-pipeline probe`: a frozen encoder's k-NN and linear accuracy on labelled shards."""

import dataclasses
import io
import itertools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, MismatchError
from milan_pipeline.interrupts import StopRequest, stop_request
from milan_pipeline.ledger import BadImageBudget
from milan_pipeline.manifest import Manifest, load_manifest
from milan_pipeline.options import option, stage_command
from milan_pipeline.provenance import StageRecord
from milan_pipeline.shards import IMAGE_EXTENSIONS, iterate_shard

if TYPE_CHECKING:
    from milan_pipeline.encoders import FrozenEncoder
    from milan_pipeline.evaluation import Features, Labels

# Scores and record, unless many images are unreadable.
SCORES_BYTES = 1000
ANSWERS = "answers.npy"
ANSWER_BYTES = 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """Score a frozen encoder by k-NN and by a linear classifier on its features.

    Shards need class numbers (.cls). Prints a table and writes scores.json and, for each test
    image, its class and both answers: answers.npy.
    """

    encoder: str = option(
        help="Run folder, .safetensors with its .json, open_clip:MODEL/TAG, or pixels."
    )
    train: str = option(help="Folder of labelled image shards to learn from.", role="execution")
    test: str = option(help="Folder of labelled image shards to score on.", role="execution")
    out: str | None = option(
        None, help="Folder for scores.json; default: probe/ in the run folder.", role="execution"
    )
    pool: str = option("cls", help="Which tokens are the feature.", choices=("cls", "mean", "both"))
    k: int = option(20, help="Neighbours that vote.")
    temperature: float = option(0.07, help="Temperature of their votes.")
    random_init: bool = option(default=False, help="Draw the encoder's weights anew: a floor.")
    seed: int = option(0, help="Seed of --random-init.")
    batch_size: int = option(64, help="Images in an encoder batch.", role="execution")
    workers: int = option(2, help="Decoding threads.", role="execution")
    device: str = option("auto", help="Where the encoder runs: auto, cpu, cuda.", role="execution")
    max_bad_fraction: float = option(
        0.01,
        help="Share of unreadable images at which to fail (a single one never fails).",
        role="execution",
    )
    allow_unfinished: bool = option(
        default=False, help="Score a run that is not done.", role="execution"
    )
    overwrite: bool = option(default=False, help="Replace other scores.", role="execution")

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise ConfigError(f"--k {self.k} and --temperature {self.temperature} must be above 0")
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError(
                f"--batch-size {self.batch_size} or --workers {self.workers} is too small; "
                "give at least 1 and 0"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"--max-bad-fraction {self.max_bad_fraction} is not within 0 to 1; give a share"
            )
        if self.out is None and (self.is_named or self.encoder.endswith(".safetensors")):
            raise ConfigError(f"--encoder {self.encoder!r} is no run folder; say --out FOLDER")

    @property
    def is_named(self) -> bool:
        """Whether the encoder is a name and not a file or folder."""
        return self.encoder.partition(":")[0] in ("pixels", "open_clip")

    @property
    def folder(self) -> str:
        """Where the scores go."""
        return self.out or storage.join(self.encoder, "probe")


def run(config: Probe) -> None:
    """Score the encoder and write scores.json, unless that was done before."""
    from milan_pipeline.devices import pick_device
    from milan_pipeline.encoder_specs import load_encoder

    train, test = _inputs(config)
    record = _record(config, train, test)
    if _is_done(config, record):
        return
    device = str(pick_device(config.device))
    encoder = load_encoder(
        config.encoder, random_init=config.random_init, seed=config.seed, device=device
    )
    record.begin()
    with stop_request() as stop:
        scores = _scores(config, encoder, train, test, stop)
    text = json.dumps(scores, indent=1) + "\n"
    storage.put_bytes(storage.join(config.folder, "scores.json"), text.encode())
    record.finish({"train": scores["train"], "test": scores["test"], "skipped": len(scores["bad"])})
    click.echo(_table(scores))


def dry_run(config: Probe) -> None:
    """Say how many images would be encoded and what the scores would take."""
    from milan_pipeline.encoder_specs import require_encoder

    train, test = _inputs(config)
    require_encoder(config.encoder, random_init=config.random_init)
    if _is_done(config, _record(config, train, test)):
        return
    click.echo(f"images to encode: {train.samples} to learn from, {test.samples} to score on")
    free = storage.free_bytes(config.folder)
    click.echo(f"bytes to write: about {SCORES_BYTES + ANSWER_BYTES * test.samples}, free: {free}")


def _record(config: Probe, train: Manifest, test: Manifest) -> StageRecord:
    from milan_pipeline.encoder_specs import fingerprint

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


def _is_done(config: Probe, record: StageRecord) -> bool:
    """Tell whether these very scores are there and may stay, and say so."""
    done = not config.overwrite and record.previous_state() == "done"
    if done:
        click.echo(f"{config.folder}: nothing to do, the scores are there")
    return done


def _inputs(config: Probe) -> tuple[Manifest, Manifest]:
    """Load both manifests; refuse a run that is not done, and sets of other class numbers."""
    file = config.encoder.endswith(".safetensors")
    folder = storage.folder_of(config.encoder) if file else config.encoder
    state_url = storage.join(folder, "state.json")
    if not (config.is_named or config.allow_unfinished) and storage.exists(state_url):
        state = json.loads(storage.read_bytes(state_url)).get("state")
        if state != "done":
            raise MismatchError(f"the run {folder} is {state!r}; finish it or --allow-unfinished")
    train = load_manifest(config.train, kind="images")
    test = load_manifest(config.test, kind="images")
    _require_same_classes(config, train, test)
    return train, test


def _require_same_classes(config: Probe, train: Manifest, test: Manifest) -> None:
    """Refuse sets whose class folders were numbered apart; foreign shards do not name theirs."""
    learnt, scored = (list(manifest.common.get("classes", ())) for manifest in (train, test))
    if not learnt or not scored or learnt == scored:
        return
    pairs = enumerate(itertools.zip_longest(learnt, scored))
    number, (a, b) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    raise MismatchError(
        f"class {number} is {a!r} in --train {config.train} and {b!r} in --test {config.test}; "
        "pack both from trees with the same class folders"
    )


def _table(scores: dict[str, Any]) -> str:
    """Lay the scores out as text."""
    name = scores["encoder"] + (" (random weights)" if scores["random_init"] else "")
    width = max(len(name), len("encoder"))
    return (
        f"{'encoder':{width}}   k-NN %   linear %   train   test   skipped\n"
        f"{name:{width}}   {scores['knn']:6.2f}   {scores['linear']:8.2f}   {scores['train']:5d}"
        f"   {scores['test']:4d}   {len(scores['bad']):7d}"
    )


def _scores(
    config: Probe, encoder: "FrozenEncoder", train: Manifest, test: Manifest, stop: StopRequest
) -> dict[str, Any]:
    """Return what scores.json holds; scores are in per cent."""
    from milan_pipeline.evaluation import knn_answers, linear_answers, per_cent

    train_set, train_bad = _features(config, encoder, train, stop, "train")
    (test_features, truth), test_bad = _features(config, encoder, test, stop, "test")
    answers = {
        "label": truth,
        "knn": knn_answers(*train_set, test_features, k=config.k, temperature=config.temperature),
        "linear": linear_answers(*train_set, test_features),
    }
    storage.put_bytes(storage.join(config.folder, ANSWERS), _npy(answers))
    return {
        "encoder": encoder.name,
        "random_init": config.random_init,
        "pool": config.pool,
        "knn": per_cent(answers["knn"], truth),
        "linear": per_cent(answers["linear"], truth),
        "train": len(train_set[1]),
        "test": len(truth),
        "bad": train_bad + test_bad,
    }


def _npy(answers: "dict[str, Labels]") -> bytes:
    """Serialise answers, a row for each test image that could be read, in the shards' order."""
    import numpy as np

    rows = np.empty(len(answers["label"]), [(name, "<i8") for name in answers])
    for name, values in answers.items():
        rows[name] = values
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def _features(
    config: Probe, encoder: "FrozenEncoder", manifest: Manifest, stop: StopRequest, which: str
) -> tuple[tuple["Features", "Labels"], list[dict[str, str]]]:
    """Return a set's features and labels, and its unreadable images as `{shard, key, reason}`."""
    from milan_pipeline.evaluation import extract_features

    places: list[dict[str, str]] = []
    features, labels, bad = extract_features(
        encoder,
        _labelled_images(manifest, places, stop),
        total=manifest.samples,
        batch_size=config.batch_size,
        workers=config.workers,
        pool=config.pool,
        description=f"probe: {which}",
    )
    ledger = [places[position] | {"reason": reason} for position, reason in bad]
    budget = BadImageBudget(fraction=config.max_bad_fraction, images=manifest.samples)
    for row in ledger:
        budget.add(row["shard"], [row])
    return (features, labels), ledger


def _labelled_images(
    manifest: Manifest, places: list[dict[str, str]], stop: StopRequest
) -> Iterator[tuple[bytes, int]]:
    """Yield each image's bytes and class number, and note in `places` where it came from."""
    for shard in manifest.shards:
        for sample in iterate_shard(manifest, shard):
            stop.raise_if_asked("no scores were written")
            extension = next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)
            if extension is None:
                continue
            places.append({"shard": shard.name, "key": sample.key})
            yield sample.members[extension], _label(sample.members, shard.name, sample.key)


def _label(members: dict[str, Any], shard: str, key: str) -> int:
    try:
        return int(members["cls"])
    except (KeyError, ValueError):
        raise DataError(
            f"sample {key!r} of {shard} has no class number in a .cls member; give labelled shards"
        ) from None


command = stage_command("probe", Probe, run=run, dry_run=dry_run)
