"""The commands of a study as plain data, and which of them need others.

Nothing is done twice: images are packed once, each teacher runs once, on as many views as any arm
trains on, and each codec's targets are packed once. Random weights have the architecture of a run
that is there, and measures that differ in the metric alone are one command.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from milan_pipeline.provenance.identity import content_hash
from workflows.study.spec import Arm, Measure, Options, Study, slug, student_of
from workflows.study.task_graph import Task

STAGE = (sys.executable, "-m", "milan_pipeline")
STORED = "float16"
"""The codec that the teacher's targets are stored with, of which the others are made."""
HASH_DIGITS = 6


def study_tasks(study: Study, out: Path) -> list[Task]:
    """List all commands of a study.

    Args:
        study: what is asked.
        out: its folder.
    """
    tasks = [*_images(study, out), *_targets(study, out)]
    for seed in study.seeds:
        tasks += [_pretrain(study, out, arm, seed) for arm in study.arms]
        for row in study.rows.values():
            tasks += _measurements(study, out, row, seed)
    return list({task.name: task for task in tasks}.values())


def scores_folder(study: Study, out: Path, title: str, row: Arm | str, seed: int) -> Path | None:
    """Return where a measure's scores of a row lie; None if that is not measured."""
    measure = study.measures[title]
    if not study.is_measured(title, row):
        return None
    key = f"{measure.stage}-{_options_hash(study, measure, student_of(row))}"
    return out / "scores" / place_of(row) / f"seed-{seed}" / key


def place_of(row: Arm | str) -> str:
    """Return the name of a row's folders."""
    return row if isinstance(row, str) else row.place


def words_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Write options as a command line has them; a list repeats its option."""
    words: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
            continue
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(each)]
    return tuple(words)


def _stage(name: str, *words: object, options: Options | None = None) -> tuple[str, ...]:
    return (*STAGE, name, *(str(word) for word in words), *words_of(options or {}))


def _images(study: Study, out: Path) -> Iterator[Task]:
    """Draw scenes, or take what is there, and pack it."""
    scenes, options = study.images.scenes, study.options_of("pack-images")
    places: dict[str, object] = {"train": study.images.train, "test": study.images.test}
    if scenes is not None:
        drawn = out / "scenes"
        numbers = words_of({"train": scenes.train, "test": scenes.test, "seed": scenes.seed})
        command = (sys.executable, "-m", "workflows.demo.scenes", str(drawn), *numbers)
        yield Task(name="scenes", command=command, output=drawn)
        places = {split: drawn / split for split in places}
    for split, source in places.items():
        own = options if scenes is None else options | {"masks": drawn / "masks" / split}
        packed = out / "images" / split
        yield Task(
            name=f"pack-{split}",
            command=_stage("pack-images", source, packed, options=own),
            needs=() if scenes is None else ("scenes",),
            output=packed / "manifest.json",
        )


def _targets(study: Study, out: Path) -> Iterator[Task]:
    """Run each teacher once, and pack its targets of each codec."""
    for teacher in study.teachers:
        views: dict[str, int] = {}
        for arm in study.arms:
            if (
                arm.codec is not None
                and arm.views is not None
                and teacher in study.teachers_of(arm)
            ):
                views[arm.codec] = max(arm.views, views.get(arm.codec, 0))
        if views:
            yield from _targets_of(study, out, teacher, views)


def _targets_of(study: Study, out: Path, teacher: str, views: Mapping[str, int]) -> Iterator[Task]:
    """Run a teacher. Views depend on no teacher, so those of all are of the same pixels."""
    extraction = _named("extract-targets", teacher)
    store = out / f"{_named('targets', teacher)}.zarr"
    given = {
        "teacher": study.teachers[teacher], "views": max(views.values()), "codec": STORED
    }  # fmt: skip
    place = ("--images", out / "images" / "train", "--out", store)
    options = study.options_of("extract-targets", given)
    yield Task(
        name=extraction,
        command=_stage("extract-targets", *place, options=options),
        needs=("pack-train",),
        output=store,
    )
    for codec, count in views.items():
        shards = _shards(out, teacher, codec)
        own = {"views": count} | ({} if codec == STORED else {"codec": codec})
        options = study.options_of("pack-targets", own)
        yield Task(
            name=_packing(teacher, codec),
            command=_stage("pack-targets", "--targets", store, "--out", shards, options=options),
            needs=(extraction,),
            output=shards / "manifest.json",
        )


def _named(what: str, teacher: str) -> str:
    return f"{what}-{slug(teacher)}" if teacher else what


def _packing(teacher: str, codec: str) -> str:
    return f"{_named('pack-targets', teacher)}-{slug(codec)}"


def _shards(out: Path, teacher: str, codec: str) -> Path:
    return out / _named("target-shards", teacher) / slug(codec)


def _run(out: Path, arm: Arm, seed: int) -> Path:
    return out / "runs" / arm.place / f"seed-{seed}"


def _pretrain(study: Study, out: Path, arm: Arm, seed: int) -> Task:
    given: Options = {"epochs": arm.epochs, "seed": seed}
    needs = ["pack-train"]
    if arm.codec is not None:
        teachers = study.teachers_of(arm)
        folders = {name: str(_shards(out, name, arm.codec)) for name in teachers}
        named = [f"{name}={folder}" for name, folder in folders.items()]
        given |= {"targets": named if len(named) > 1 else [*folders.values()], "views": arm.views}
        needs += [_packing(name, arm.codec) for name in teachers]
    run = _run(out, arm, seed)
    options = study.options_of("pretrain", study.students[arm.student].options, given)
    place = ("--images", out / "images" / "train", "--out", run)
    return Task(
        name=f"pretrain-{arm.place}-{seed}",
        command=_stage("pretrain", *place, options=options),
        needs=tuple(needs),
        output=run / "encoder.safetensors",
    )


def _measurements(study: Study, out: Path, row: Arm | str, seed: int) -> Iterator[Task]:
    name = student_of(row)
    encoder, needs = _encoder(study, out, row, seed)
    train, test = (out / "images" / split for split in ("train", "test"))
    common = (*encoder, "--label", study.names.get(name, name), "--train", train, "--val", test)
    for title, measure in study.measures.items():
        folder = scores_folder(study, out, title, row, seed)
        if folder is None:
            continue
        options = _options(study, measure, name) | {"seed": seed}
        if measure.stage == "probe" and row in study.teacher_rows and not options.get("dense"):
            options["features"] = out / "scores" / place_of(row) / "features"  # of all seeds
        yield Task(
            name=f"{folder.name}-{place_of(row)}-{seed}",
            command=_stage(measure.stage, *common, "--out", folder, options=options),
            needs=(*needs, "pack-train", "pack-test"),
            output=folder / "scores.json",
        )


def _options(study: Study, measure: Measure, name: str) -> Options:
    return study.options_of(measure.stage, measure.options, measure.given.get(name, {}))


def _options_hash(study: Study, measure: Measure, name: str) -> str:
    return content_hash({"options": _options(study, measure, name)})[:HASH_DIGITS]


def _encoder(
    study: Study, out: Path, row: Arm | str, seed: int
) -> tuple[tuple[object, ...], tuple[str, ...]]:
    """Return the words that name a row's encoder, and what must be finished to have it."""
    if isinstance(row, str) and row in study.teacher_rows:
        return ("--encoder", _as_encoder(study, study.teacher_rows[row])), ()
    arm = study.arms[0] if isinstance(row, str) else row
    drawn = ("--random-init",) if row == "random" else ()
    needs = (f"pretrain-{arm.place}-{seed}",)
    return ("--encoder", _run(out, arm, seed), *drawn), needs


def _as_encoder(study: Study, teacher: str) -> str:
    """Name a teacher as an encoder."""
    kind, _, rest = teacher.partition(":")
    if kind in ("timm", "run"):
        return teacher if kind == "timm" else rest
    pretrained = study.options_of("extract-targets").get("pretrained")
    return f"open_clip:{teacher}" + (f"/{pretrained}" if pretrained else "")
