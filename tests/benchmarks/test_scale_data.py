"""Made-up manifests are what the program itself writes."""

from benchmarks.scale_data import IDENTITY, write_manifests
from milan_pipeline.provenance.identity import stated_identity
from milan_pipeline.shards.manifest import load_manifest


def test_made_up_manifests_are_read_as_real_ones(tmp_path):
    folders = write_manifests(tmp_path, 3, views=2)
    for folder, kind, shards in zip(folders, ("images", "targets"), (3, 6), strict=True):
        manifest = load_manifest(str(folder), kind=kind)
        assert len(manifest.shards) == shards
        assert manifest.to_bytes() == (folder / "manifest.json").read_bytes()
    assert stated_identity(manifest.common, what="targets") == IDENTITY
