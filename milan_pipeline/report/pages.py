"""Makes the page of an inspection, of any kind. It needs matplotlib, which facts do not."""

from milan_pipeline.errors import ConfigError
from milan_pipeline.report.image_page import image_page
from milan_pipeline.report.inspection import Inspection
from milan_pipeline.report.page import Page
from milan_pipeline.report.run_page import run_page
from milan_pipeline.report.target_page import target_page


def page_of(
    found: Inspection,
    *,
    images: str | None,
    targets: str | None,
    originals: str | None,
    gallery: int,
    seed: int,
) -> Page:
    """Look closer and make the page; see `target_page`, `image_page` and `run_page`.

    Raises:
        ConfigError: an option is for places of another kind.
        DataError, MissingDataError, MismatchError: what is there cannot be shown.
    """
    if targets is not None and found.kind != "run":
        raise ConfigError(f"--targets {targets} is for a run, not {found.kind}; leave it out")
    if originals is not None and found.kind in ("run", "image shards"):
        raise ConfigError(f"--originals {originals} is for targets, not {found.kind}; leave it out")
    if found.kind == "run":
        return run_page(found.runs, images=images, targets=targets, gallery=gallery, seed=seed)
    place, facts = found.places[0], found.facts[0]
    if found.kind == "image shards":
        return image_page(place, facts, gallery=gallery, seed=seed)
    return target_page(place, facts, images=images, originals=originals, gallery=gallery, seed=seed)
