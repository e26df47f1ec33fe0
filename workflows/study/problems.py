"""What the types of a study's YAML do not tell: unknown names, and what has no effect."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from workflows.study.spec import (
    BASELINES,
    EACH_EPOCH,
    MEASURING,
    Codecs,
    Measure,
    Options,
    Study,
    slug,
)

OF_MEASURES = {"encoder": "students", "train": "images", "val": "images", "seed": "seeds"}
SET_BY: Mapping[str, Mapping[str, str]] = {
    "pack-images": {},
    "extract-targets": {"images": "images", "teacher": "teacher", "views": "views"}
    | {"codec": "codecs"},
    "pack-targets": {"views": "views", "codec": "codecs"},
    "pretrain": {"images": "images", "targets": "codecs", "views": "views"}
    | {"epochs": "epochs", "seed": "seeds"},
    **dict.fromkeys(MEASURING, OF_MEASURES),
}
"""The stages of a study, each with the options that a key of the study sets."""
METRICS: Mapping[str, tuple[str, ...]] = {
    "probe": ("knn", "linear", "attentive"),
    "finetune": ("top1", "top5", "best-top1"),
    "segment": ("miou", "macc", "aacc", "best-miou"),
}
"""How the metrics of a stage begin."""
NEIGHBOURS = (10, 20, 30, 100, 200)


def problems_of(study: Study) -> Iterator[str]:
    """Yield what is wrong with a study, each with a remedy.

    Raises:
        ConfigError: the recipe cannot be read.
    """
    images = study.images
    if (images.scenes is None) == (images.train is None or images.test is None):
        yield "images need either train and test, or scenes; give one of the two"
    if not study.students:
        yield "students is empty; name one"
    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        yield f"seeds {study.seeds} is not one or more different numbers; give each once"
    if unknown := set(study.baselines) - set(BASELINES):
        yield f"baseline {min(unknown)!r} is unknown; choose of {', '.join(BASELINES)}"
    yield from _unknown_teachers(study)
    yield from _unused_options(study)
    wrong = [n for n in _views(study) if n != EACH_EPOCH and not (isinstance(n, int) and n > 0)]
    if wrong:
        yield f"views {wrong[0]!r} is neither a number nor {EACH_EPOCH!r}; give one of the two"
    else:
        yield from _unknown_names(study)
    for title, measure in study.measures.items():
        yield from _no_metric(study, title, measure)


def _unknown_teachers(study: Study) -> Iterator[str]:
    """Yield students of no teacher, and of teachers that the study does not have."""
    known = study.teachers
    if not known:
        yield "teacher is empty; name one"
    places = [slug(name) for name in known]
    if len(known) > 1 and ("" in places or len(set(places)) < len(places)):
        yield (
            f"teacher has {', '.join(map(repr, known))}, which are not different names of files; "
            "give names that differ in letters or digits"
        )
    for name, student in study.students.items():
        chosen = student.teachers
        if chosen is None:
            continue
        if not student.learns_targets:
            yield f"student {name!r} learns no targets; leave its teachers out"
        if not chosen or (unknown := set(chosen) - set(known)):
            what = repr(min(unknown)) if chosen else "none"
            yield f"student {name!r}: teachers has {what}; choose of {', '.join(known)}"


def _views(study: Study) -> Iterator[Any]:
    """Yield the numbers of views of the study, of its students and of the codecs of either."""
    each: Iterable[tuple[list[Any] | None, Codecs | None]] = [
        (study.views, study.codecs),
        *((student.views, student.codecs) for student in study.students.values()),
    ]
    for views, codecs in each:
        yield from views or ()
        for own in codecs.values() if isinstance(codecs, dict) else ():
            yield from own


def _unused_options(study: Study) -> Iterator[str]:
    """Yield options of stages that are not run, and options that a key of the study sets."""
    for stage in study.options:
        if stage not in SET_BY:
            stages = ", ".join(SET_BY)
            yield f"options has {stage!r}, which is no stage of a study; choose of {stages}"
    where: list[tuple[str, str, Options]] = [
        *((f"options of {stage}", stage, given) for stage, given in study.options.items()),
        *((f"student {name!r}", "pretrain", one.options) for name, one in study.students.items()),
    ]
    for title, measure in study.measures.items():
        both = (measure.options, *measure.given.values())
        where += [(f"measure {title!r}", measure.stage, given) for given in both]
    for what, stage, options in where:
        for name in options:
            key = SET_BY.get(stage, {}).get(name.replace("_", "-"))
            if key is not None:
                yield f"{what}: the option {name!r} has no effect, as {key!r} sets it; leave it out"


def _unknown_names(study: Study) -> Iterator[str]:
    """Yield what names a student or a row that is not there."""
    rows, known = study.rows, {*study.students, "random", *study.teacher_rows}
    if unknown := set(study.names) - known:
        yield f"names has {min(unknown)!r}, which is no student or baseline; correct it"
    for title, measure in study.measures.items():
        unknown = ({*(measure.only or ())} - known - set(rows)) | (set(measure.given) - known)
        if unknown:
            yield f"measure {title!r} names {min(unknown)!r}, which is no student; correct it"
    for name in (name for pair in study.pairs for name in pair):
        if name not in rows:
            yield f"pairs name {name!r}, which is no row; the rows are {', '.join(rows)}"
    places = [arm.place for arm in study.arms]
    if len(set(places)) < len(places):
        yield "two students have names that are one folder; give one of them another name"


def _no_metric(study: Study, title: str, measure: Measure) -> Iterator[str]:
    """Yield a metric that the stage has not, or not with these numbers of neighbours."""
    kind, _, number = measure.metric.partition("@")
    kinds = METRICS[measure.stage]
    if not kind.startswith(kinds):
        known = ", ".join(kinds)
        yield f"measure {title!r}: {measure.stage} has no metric {kind!r}; choose of {known}"
    given = study.options_of(measure.stage, measure.options).get("k") or NEIGHBOURS
    asked = [str(k) for k in (given if isinstance(given, (list, tuple)) else [given])]
    if kind.startswith("knn") and number not in asked:
        yield (
            f"measure {title!r}: no score is {measure.metric!r}, as k is {', '.join(asked)}; "
            f"give {kind}@{asked[0]}, or the option k"
        )
