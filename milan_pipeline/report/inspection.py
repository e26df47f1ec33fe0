"""Finds out what a folder contains, or several runs."""

import dataclasses
from collections.abc import Sequence

from milan_pipeline import storage
from milan_pipeline.core.console import warn
from milan_pipeline.errors import ConfigError, MilanError, MissingDataError
from milan_pipeline.report.facts import Facts, lines_of
from milan_pipeline.report.folder_kind import Kind, folder_kind, outputs_below, result_of
from milan_pipeline.report.folder_status import run_status
from milan_pipeline.report.run.facts import RunReport, distinctly_named, read_run
from milan_pipeline.report.target_facts import image_shard_facts, store_facts, target_shard_facts

FACTS_OF = {
    "target store": store_facts,
    "target shards": target_shard_facts,
    "image shards": image_shard_facts,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """The facts about some folders.

    Attributes:
        kind: of all places.
        places: a run each, or one of another kind.
        facts: of each place.
        runs: those that are runs.
    """

    kind: Kind
    places: Sequence[str]
    facts: Sequence[Facts]
    runs: Sequence[RunReport]

    @property
    def document(self) -> Facts | list[Facts]:
        """The facts of the one place, or a list of several runs'."""
        return self.facts[0] if len(self.facts) == 1 else list(self.facts)

    @property
    def lines(self) -> list[str]:
        """The same for a terminal; an empty line separates places."""
        parts = [list(lines_of(facts)) for facts in self.facts]
        return [line for part in parts for line in ("", *part)][1:]


def inspect_places(places: Sequence[str], results: tuple[str, ...] = ()) -> Inspection:
    """Find out what one folder contains, or several that are all runs.

    Args:
        places: paths or URLs; a folder with runs below it stands for all of these.
        results: folders with further results of the runs, in them or below them.

    Raises:
        ConfigError: several places are not all runs, or `results` are for none.
        MissingDataError: a place holds nothing that is known.
        DataError: it is damaged.
    """
    places = [found for place in places for found in _found_at(place)]
    kinds = [folder_kind(place) for place in places]
    kind = kinds[0]
    if len(places) > 1 and set(kinds) != {"run"}:
        other = next((p for p, k in zip(places, kinds, strict=True) if k != "run"), places[0])
        raise ConfigError(f"{other} is no run, and only runs are compared; inspect it by itself")
    if kind == "run":
        runs = distinctly_named([read_run(place, results) for place in places])
        return Inspection(kind=kind, places=places, facts=[r.facts for r in runs], runs=runs)
    if results:
        raise ConfigError(f"--results {results[0]} is for a run, not for {kind}; leave it out")
    return Inspection(kind=kind, places=places, facts=[FACTS_OF[kind](places[0])], runs=[])


def _found_at(place: str) -> list[str]:
    """Return a place itself, or the runs below it."""
    try:
        folder_kind(place)
    except MissingDataError:
        runs = _runs_below(place)
        if not runs:
            raise
        return runs
    return [place]


def _runs_below(url: str) -> list[str]:
    """Return the paths of all runs below a local folder, in the order of their names.

    One that cannot be read is left out with a warning.

    Raises:
        StorageError: the folder cannot be listed.
    """
    root = storage.local_path(url)
    if root is None or not root.is_dir():
        return []
    return [str(path) for path in outputs_below(root) if _is_sound_run(str(path))]


def _is_sound_run(url: str) -> bool:
    try:
        if result_of(url) or folder_kind(url) != "run":
            return False
        run_status(url)
    except MilanError as error:
        warn(f"{error}; it is left out")
        return False
    return True
