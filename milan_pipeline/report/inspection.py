"""Look at one place, or at several runs: facts first, then a page if one is wanted."""

import dataclasses
import json
from collections.abc import Sequence

from milan_pipeline.errors import ConfigError
from milan_pipeline.report.facts import Facts, lines_of
from milan_pipeline.report.kinds import Kind, kind_of
from milan_pipeline.report.run_facts import RunReport, read_run
from milan_pipeline.report.shard_facts import image_shard_facts, target_shard_facts
from milan_pipeline.report.store_facts import store_facts

FACTS_OF = {
    "target store": store_facts,
    "target shards": target_shard_facts,
    "image shards": image_shard_facts,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found.

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

    def to_json(self) -> str:
        """Return the facts of the one place, or a list of several runs'."""
        return json.dumps(self.facts[0] if len(self.facts) == 1 else list(self.facts), indent=1)

    def to_text(self) -> str:
        """Return aligned lines."""
        return "\n\n".join("\n".join(lines_of(facts)) for facts in self.facts)

    def page(self, *, images: str | None, targets: str | None, gallery: int, seed: int) -> str:
        """Make the page; see `target_page`, `image_page` and `run_page`.

        Raises:
            ConfigError: an option is for places of another kind.
            DataError, MissingDataError, MismatchError: what is there cannot be shown.
        """
        # Only now: matplotlib takes a second.
        from milan_pipeline.report.image_page import image_page
        from milan_pipeline.report.page import render
        from milan_pipeline.report.run_page import run_page
        from milan_pipeline.report.target_page import target_page

        if targets is not None and self.kind != "run":
            raise ConfigError(
                f"--targets {targets} is for a run, not for {self.kind}; leave it out"
            )
        place, facts = self.places[0], self.facts[0]
        if self.kind == "run":
            page = run_page(self.runs, images=images, targets=targets, gallery=gallery, seed=seed)
        elif self.kind == "image shards":
            page = image_page(place, facts, gallery=gallery, seed=seed)
        else:
            page = target_page(place, facts, images=images, gallery=gallery, seed=seed)
        return render(page)


def inspect_places(places: Sequence[str], results: tuple[str, ...] = ()) -> Inspection:
    """Find out what lies at one place, or at several that are all runs.

    Args:
        places: paths or URLs.
        results: folders in and below which the runs' results lie, beside their own.

    Raises:
        ConfigError: several places are not all runs, or `results` are for none.
        MissingDataError: a place holds nothing that is known.
        DataError: it is damaged.
    """
    kinds = [kind_of(place) for place in places]
    kind = kinds[0]
    if len(places) > 1 and set(kinds) != {"run"}:
        other = next((p for p, k in zip(places, kinds, strict=True) if k != "run"), places[0])
        raise ConfigError(f"{other} is no run, and only runs are compared; inspect it by itself")
    if kind == "run":
        runs = [read_run(place, results) for place in places]
        return Inspection(kind=kind, places=places, facts=[r.facts() for r in runs], runs=runs)
    if results:
        raise ConfigError(f"--results {results[0]} is for a run, not for {kind}; leave it out")
    return Inspection(kind=kind, places=places, facts=[FACTS_OF[kind](places[0])], runs=[])
