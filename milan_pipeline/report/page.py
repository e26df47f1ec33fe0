"""Turns the parts of a page into HTML, in one self-contained file.

The template escapes all that comes from data. Only the page's own script may run, by its hash, and
the page may fetch nothing: a hostile key stays text.
"""

import base64
import dataclasses
import hashlib
import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jinja2

from milan_pipeline.report.facts import Facts, label_of, short_key, text_of
from milan_pipeline.report.gallery import Entry
from milan_pipeline.report.run.predictions import Predictions
from milan_pipeline.report.svg import Plot


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """The gallery: its views, their grid of patches, the mask ratios, and what its script reads."""

    entries: Sequence[Entry]
    grid: tuple[int, int]
    ratios: Sequence[float]
    data: dict[str, Any]

    @property
    def has_pixels(self) -> bool:
        """Whether views are shown as they look."""
        return any(entry.pixels for entry in self.entries)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """An image: its key, the name of its class if it has one, and its data URI."""

    key: str
    label: str
    uri: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts below a title; `anchor` is what links point at."""

    anchor: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """All parts of a page.

    Attributes:
        title: at the top.
        kind: what it is of, above the title.
        state: such as "done"; empty where there is none.
        paths: of what it shows.
        highlights: the few figures that one wants first, by name.
        facts: all that is known, by section.
        notes: what was looked at, and how.
        gallery: of targets.
        pictures: of images.
        plots: with `plots_title` and `plots_words` above them.
        predictions: of runs.
        tables: such as results.
    """

    title: str
    kind: str
    state: str
    paths: Sequence[str]
    highlights: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    notes: Sequence[str]
    gallery: Gallery | None = None
    pictures: Sequence[Picture] = ()
    plots: Sequence[Plot] = ()
    plots_title: str = ""
    plots_words: str = ""
    predictions: Sequence[Predictions] = ()
    tables: Sequence[Table] = ()

    @property
    def sections(self) -> Iterator[tuple[str, str]]:
        """Yield the anchors and names of the sections that are there."""
        if self.gallery:
            yield "gallery", "Gallery"
        if self.pictures:
            yield "pictures", "Images"
        if self.plots:
            yield "plots", self.plots_title
        if self.predictions:
            yield "predictions", "Predictions"
        yield from ((table.anchor, table.title) for table in self.tables)
        yield "facts", "Facts"
        yield "notes", "What was looked at"


def shown(facts: Facts) -> list[tuple[str, list[tuple[str, str]]]]:
    """Write facts as the page shows them."""
    return [
        (section, [(label_of(name), text_of(name, value)) for name, value in part.items()])
        for section, part in facts.items()
        if part
    ]


def render(page: Page) -> str:
    """Return the HTML of a page; the same page gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("milan_pipeline.report", "."),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = (_own(environment, name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page,
        style=style,
        script=script,
        script_sha256=digest,
        version=importlib.metadata.version("milan-pipeline"),
        short_key=short_key,
        words=lambda value: "not known" if math.isnan(value) else f"{value:.3f}",
    )


def _own(environment: jinja2.Environment, name: str) -> str:
    """Return a file of this package, which goes into the page as it is."""
    assert environment.loader is not None  # noqa: S101 - given above
    return environment.loader.get_source(environment, name)[0]
