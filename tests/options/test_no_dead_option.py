"""No option is dead: content changes the output, execution does not, and each is shown to."""

import dataclasses
from pathlib import Path

import pytest

from tests.options.kinds import FITTING, Entry, Exempt, Same, Settings, Table
from tests.options.places import Places
from tests.options.running import Runner, config_classes
from tests.options.showing import Shown, joint_changes
from tests.options.tables import TABLES

MOST_EXEMPT = 0.1
BY_NAME = {table.command: table for table in TABLES}
ALONE = [
    pytest.param(table, name, entry, id=f"{table.command}-{name}")
    for table in TABLES
    for name, entry in table.all_entries()
    if not isinstance(entry, Same | Exempt)
]
TOGETHER = [
    pytest.param(table, *group, id=f"{table.command}-{number}")
    for table in TABLES
    for number, group in enumerate(joint_changes(table))
]


@pytest.fixture(scope="module")
def shown(
    pictures: Path,
    image_shards: Path,
    tiny_clip: Path,
    target_store: Path,
    target_shards: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shown:
    folder = tmp_path_factory.mktemp("options")
    places = Places(
        folder / "places", pictures=pictures, images=image_shards, clip=tiny_clip,
        store=target_store, targets=target_shards,
    )  # fmt: skip
    return Shown(Runner(folder / "runs", places))


@pytest.mark.parametrize("command", sorted(config_classes()))
def test_every_option_has_an_entry(command: str) -> None:
    """A new option needs one line in its command's table, of a kind that fits its role."""
    fields = dataclasses.fields(config_classes()[command])
    entries = BY_NAME[command].entries
    assert {field.name for field in fields} == set(entries)
    for field in fields:
        assert isinstance(entries[field.name], FITTING[field.metadata["role"]]), field.name


def test_few_are_exempt_and_say_why() -> None:
    entries = [entry for table in TABLES for entry in table.entries.values()]
    exempt = [entry for entry in entries if isinstance(entry, Exempt)]
    assert len(exempt) < MOST_EXEMPT * len(entries)
    assert all(len(entry.reason.split()) > 3 for entry in exempt)


@pytest.mark.parametrize(("table", "name", "entry"), ALONE)
def test_it_is_alive(shown: Shown, table: Table, name: str, entry: Entry) -> None:
    assert shown.objection(table, name, entry) is None


@pytest.mark.parametrize(("table", "given", "changes", "within"), TOGETHER)
def test_execution_leaves_the_output_as_it_is(
    shown: Shown, table: Table, given: Settings, changes: Settings, within: float
) -> None:
    assert shown.objection_to_all(table, given, changes, within) is None
