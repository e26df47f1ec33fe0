"""A disk that fails, and the small world that stages read from it."""

from collections.abc import Iterator

import pytest

from tests.faults.file_systems.every_stage import Small
from tests.faults.file_systems.faulty import FaultyDisk, has_compiler


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    """A server of commands with the faults preloaded."""
    if not has_compiler():
        pytest.skip("needs Linux and a C compiler (cc), which makes the library of faults")
    found = FaultyDisk(tmp_path_factory.mktemp("aside"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def small(disk: FaultyDisk, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small world."""
    return Small(tmp_path_factory.mktemp("small"), disk)
