"""The campaign's ends: every test here is marked, and the figures are printed and kept."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults import campaign
from tests.faults.jobs import Inputs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder, so that no test of it is in the default run by oversight."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("faults")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a process of pytest-xdist to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = json.dumps(campaign.document())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up the counts of such processes."""
    counts = getattr(node, "workeroutput", {}).get("faults")
    if counts is not None:
        campaign.merge(json.loads(counts))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of counts, and write them to the file that FAULTS_JSON names."""
    if not campaign.COUNTS:
        return
    terminalreporter.section(f"faults: {campaign.SCALE}, seed {campaign.SEED}")
    for line in campaign.table():
        terminalreporter.line(line)
    place = os.environ.get("FAULTS_JSON")
    if place:
        Path(place).write_text(json.dumps(campaign.document(), indent=1) + "\n")


class World(NamedTuple):
    """A copy of the small world that may be broken, as long as it is mended again."""

    images: Path
    targets: Path
    store: Path


@pytest.fixture(scope="module")
def world(image_shards: Path, target_shards: Path, target_store: Path, tmp_path_factory) -> World:
    """Image shards, target shards and the target store of 24 pictures in two views."""
    places = World(*(tmp_path_factory.mktemp("world") / name for name in World._fields))
    for source, place in zip((image_shards, target_shards, target_store), places, strict=True):
        shutil.copytree(source, place)
    return places


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What stages read that are disturbed while they run; made when it is asked for."""
    return Inputs(tmp_path_factory.mktemp("inputs"))
