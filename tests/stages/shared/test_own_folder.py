"""Each output has a folder of its own."""

import shutil

import pytest

from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared.own_folder import require_own_folder

FOUND = {"zarr.json": "a target store", "config.json": "a run", "manifest.json": "image shards"}


@pytest.mark.parametrize(
    ("holds", "kind"),
    [
        ("zarr.json", "target shards"),
        ("zarr.json", "run"),
        ("config.json", "target store"),
        ("config.json", "image shards"),
        ("manifest.json", "run"),
    ],
)
def test_a_folder_of_something_else_is_refused(holds, kind, target_store, image_shards, tmp_path):
    places = {"zarr.json": target_store, "manifest.json": image_shards}
    if holds in places:
        shutil.copy(places[holds] / holds, tmp_path)
    else:
        (tmp_path / holds).write_text("{}")
    said = f"{tmp_path} already holds {FOUND[holds]}; give another folder for"
    with pytest.raises(ConfigError, match=said):
        require_own_folder(str(tmp_path), kind)


def test_its_own_an_empty_and_no_folder_are_fine(target_store, tmp_path):
    require_own_folder(str(target_store), "target store")
    require_own_folder(str(tmp_path), "run")
    require_own_folder(str(tmp_path / "new"), "image shards")
