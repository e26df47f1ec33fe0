"""What a study is, as its YAML says.

The rows of its tables are arms and baselines. An arm is a student on targets of one codec, with so
many views, trained for so many epochs; students that learn no targets have neither codec nor views.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from milan_pipeline.cli.recipes import find_recipe, read_sections
from milan_pipeline.core.schema import Positive

Options = dict[str, Any]
Codecs = list[str] | dict[str, list[int | str]]
"""Codecs of targets, or the numbers of views of each."""
EACH_EPOCH: Literal["each epoch"] = "each epoch"
"""Among `views`: as many as epochs, so that no view comes twice, as from a teacher at work."""
BASELINES = ("random", "teacher")
MEASURING = ("probe", "finetune", "segment")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenes:
    """Scenes of the demo, which are drawn."""

    train: Positive
    test: Positive
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """What is learnt from and scored on: folders as pack-images takes them, or drawn scenes."""

    train: str | None = None
    test: str | None = None
    scenes: Scenes | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student:
    """A way to pretrain; what it leaves open is the study's.

    Attributes:
        options: of pretrain, over the study's.
        views: how many are trained on; each makes an arm.
        codecs: of the targets; each makes an arm, and one with a list has views of its own.
        teachers: names of those that it learns from; None: all of the study's.
        epochs: lengths of training; each makes an arm.
    """

    options: Options = dataclasses.field(default_factory=dict)
    views: list[int | str] | None = None
    codecs: Codecs | None = None
    teachers: list[str] | None = None
    epochs: list[Positive] | None = None

    @property
    def learns_targets(self) -> bool:
        """Whether it needs a teacher."""
        return self.options.get("target") != "pixels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of the tables.

    Attributes:
        stage: that scores.
        metric: of its scores.
        options: of the stage, over the study's; measures with equal ones share a run.
        given: further options, by the name of a student or baseline.
        only: names of the students, baselines or single rows that are scored; None: all.
    """

    stage: Literal["probe", "finetune", "segment"]
    metric: str
    options: Options = dataclasses.field(default_factory=dict)
    given: dict[str, Options] = dataclasses.field(default_factory=dict)
    only: list[str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study.

    Attributes:
        title: of its page.
        images: to learn from and to score on.
        teacher: as extract-targets takes it; or several, each by a name.
        students: by name; random weights are those of the first one's architecture.
        measures: by the title of their column.
        recipe: a recipe's name or file, whose sections are options of the stages.
        options: of each stage, over the recipe's.
        views: of students that do not say.
        codecs: likewise.
        epochs: likewise.
        seeds: of the runs, of random weights, of drawn labels and of every training.
        baselines: which of `BASELINES` are measured, too.
        names: what tables call a student or baseline, by its name.
        pairs: rows that are compared image by image, by their names: the better, the other.
        notes: sentences of the page, such as what was tuned on what, and what was predicted.
    """

    title: str
    images: Images
    teacher: str | dict[str, str]
    students: dict[str, Student]
    measures: dict[str, Measure]
    recipe: str | None = None
    options: dict[str, Options] = dataclasses.field(default_factory=dict)
    views: list[int | str] = dataclasses.field(default_factory=lambda: [1])
    codecs: Codecs = dataclasses.field(default_factory=lambda: ["float16"])
    epochs: list[Positive] = dataclasses.field(default_factory=lambda: [400])
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    baselines: list[str] = dataclasses.field(default_factory=lambda: list(BASELINES))
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    pairs: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def options_of(self, stage: str, *more: Mapping[str, Any]) -> Options:
        """Return a stage's options: the recipe's, the study's, then others, the last ones winning.

        Raises:
            ConfigError: the recipe cannot be read.
        """
        found: Options = {}
        for options in (self._sections.get(stage, {}), self.options.get(stage, {}), *more):
            found |= {name.replace("_", "-"): value for name, value in options.items()}
        return found

    @functools.cached_property
    def _sections(self) -> dict[str, Options]:
        return read_sections(find_recipe(self.recipe)) if self.recipe else {}

    @property
    def teachers(self) -> dict[str, str]:
        """The teachers by name; the name of one that has none is empty."""
        return self.teacher if isinstance(self.teacher, dict) else {"": self.teacher}

    @property
    def teacher_rows(self) -> dict[str, str]:
        """What the rows of teachers are called, each with its teacher."""
        return {f"teacher-{name}" if name else "teacher": it for name, it in self.teachers.items()}

    @property
    def scored_baselines(self) -> list[str]:
        """The baselines, with a row for each teacher."""
        rows = {"teacher": list(self.teacher_rows)}
        return [row for name in self.baselines for row in rows.get(name, [name])]

    def teachers_of(self, arm: "Arm") -> list[str]:
        """Return the names of the teachers that an arm learns from, in the study's order."""
        chosen = self.students[arm.student].teachers
        return [name for name in self.teachers if chosen is None or name in chosen]

    @property
    def arms(self) -> list["Arm"]:
        """All students on all their targets."""
        return [arm for name in self.students for arm in self._arms_of(name)]

    @property
    def rows(self) -> dict[str, "Arm | str"]:
        """What the tables have a row for, by its name there: arms, then baselines."""
        arms: dict[str, Arm | str] = {self._name_of(arm): arm for arm in self.arms}
        return arms | {self.names.get(name, name): name for name in self.scored_baselines}

    def is_measured(self, title: str, row: "Arm | str") -> bool:
        """Tell whether a measure scores a row."""
        only = self.measures[title].only
        names = {name for name, each in self.rows.items() if each == row}
        return only is None or bool({student_of(row), *names} & set(only))

    def _arms_of(self, name: str) -> Iterator["Arm"]:
        student = self.students[name]
        codecs = self.codecs if student.codecs is None else student.codecs
        for epochs in self.epochs if student.epochs is None else student.epochs:
            if not student.learns_targets:
                yield Arm(student=name, epochs=epochs)
                continue
            for codec in codecs:
                own = codecs[codec] if isinstance(codecs, dict) else student.views
                views = [_number(n, epochs) for n in (self.views if own is None else own)]
                for count in dict.fromkeys(views):
                    yield Arm(student=name, epochs=epochs, codec=codec, views=count)

    def _name_of(self, arm: "Arm") -> str:
        """Name an arm by what tells it from the student's others."""
        others = list(self._arms_of(arm.student))
        words = [self.names.get(arm.student, arm.student)]
        if len({each.views for each in others}) > 1:
            words.append("1 view" if arm.views == 1 else f"{arm.views} views")
        if len({each.codec for each in others}) > 1:
            words.append(str(arm.codec))
        if len({each.epochs for each in others}) > 1:
            words.append(f"{arm.epochs} epochs")
        return ", ".join(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """A student on targets of a codec with so many views; None of both if it learns no targets."""

    student: str
    epochs: int
    codec: str | None = None
    views: int | None = None

    @property
    def place(self) -> str:
        """The name of its folder."""
        targets = () if self.codec is None else (f"{self.views}v", self.codec)
        return slug("-".join((self.student, *targets, f"{self.epochs}e")))


def student_of(row: Arm | str) -> str:
    """Return the name of a row's student; of a baseline, its own."""
    return row if isinstance(row, str) else row.student


def slug(text: str) -> str:
    """Return a text as a file name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9.=]+", "-", text.lower()).strip("-")


def _number(views: int | str, epochs: int) -> int:
    """Return a number of views; `EACH_EPOCH` is that of the epochs."""
    return epochs if views == EACH_EPOCH else int(views)
