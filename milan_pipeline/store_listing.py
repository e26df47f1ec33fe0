"""What lies in a target store beside its units' objects: groups, and what nobody reads."""

from collections.abc import Sequence

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError
from milan_pipeline.target_store import group_bytes
from milan_pipeline.units import Mark, Unit, view_name


def faults_of_groups(url: str, views: int) -> dict[int, str]:
    """Say which views' groups are missing or damaged, by view."""
    faults = {}
    for view in range(views):
        place = storage.join(url, view_name(view), "zarr.json")
        try:
            if storage.read_bytes(place) != group_bytes({}):
                faults[view] = f"{place} is damaged"
        except MissingDataError:
            faults[view] = f"{place} is missing"
    return faults


def extra_objects(url: str, unit: Unit, mark: Mark) -> int:
    """Count what lies in a unit's folder and no mark lists: harmless, nobody reads it."""
    expected: dict[str, set[str]] = {}
    for path in mark.objects:
        parts = path.split("/")
        for depth, name in enumerate(parts):
            expected.setdefault("/".join(parts[:depth]), set()).add(name)
    folders = {folder: storage.join(url, unit.path, folder) for folder in expected}
    found = {folder: storage.list_names(place) for folder, place in folders.items()}
    return sum(len(set(names) - expected[folder]) for folder, names in found.items())


def extra_units(url: str, units: Sequence[Unit], views: int) -> int:
    """Count what lies in the views' folders and belongs to none of the units."""
    expected = {unit.path for unit in units} | {
        f"{view_name(view)}/zarr.json" for view in range(views)
    }
    found = {
        f"{view_name(view)}/{name}"
        for view in range(views)
        for name in storage.list_names(storage.join(url, view_name(view)))
    }
    return len(found - expected)
