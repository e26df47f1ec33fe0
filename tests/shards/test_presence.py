"""Shards that a manifest lists and that are not there are named before anything is read."""

from pathlib import Path

import pytest

from milan_pipeline.errors import MissingDataError
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.presence import require_present

NAMES = [f"{name}.tar" for name in "abcde"]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".index.npy").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("lost", "remedy"), [("c.tar", "copy it again"), ("c.index.npy", "milan-pipeline index`")]
)
def test_a_file_lost_in_the_middle_is_named(there: Path, lost: str, remedy: str) -> None:
    head = Manifest(kind="images", folder=str(there), shards=())
    require_present(head, NAMES)
    (there / lost).unlink()
    with pytest.raises(MissingDataError, match=f"{lost} does not exist; .*{remedy}"):
        require_present(head, NAMES)
    require_present(head, [name for name in NAMES if name != "c.tar"])


def test_tars_may_lie_elsewhere(there: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("index")
    (folder / "a.index.npy").touch()
    head = Manifest(kind="images", folder=str(folder), shards=())
    require_present(head, [f"{there}/a.tar", "https://nowhere.invalid/a.tar"])
    with pytest.raises(MissingDataError, match=r"/z\.tar does not exist"):
        require_present(head, [f"{there}/z.tar"])
    require_present(Manifest(kind="images", folder="s3://bucket", shards=()), ["z.tar"])
