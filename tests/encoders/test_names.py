"""What a spec names is told without loading anything."""

import json
import re

import pytest

from milan_pipeline.encoders.names import is_named, kind_of, require_done, require_there
from milan_pipeline.errors import ConfigError, MismatchError, MissingDataError


@pytest.mark.parametrize(
    ("spec", "kind", "rest"),
    [
        ("pixels", "pixels", ""),
        ("pixels:32", "pixels", "32"),
        ("open_clip:local-dir:a/b", "open_clip", "local-dir:a/b"),
        ("timm:vit_base_patch16_224.mae", "timm", "vit_base_patch16_224.mae"),
        ("vit_base_patch16_224", "timm", "vit_base_patch16_224"),
        ("encoder.safetensors", "files", "encoder.safetensors"),
        ("runs/vit_base_patch16_224", "files", "runs/vit_base_patch16_224"),
        ("s3://bucket/run", "files", "s3://bucket/run"),
    ],
)
def test_a_spec_tells_its_kind(spec, kind, rest):
    assert kind_of(spec) == (kind, rest)
    assert is_named(spec) == (kind != "files")


def test_a_folder_wins_over_a_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_named("test_vit")
    (tmp_path / "test_vit").mkdir()
    assert not is_named("test_vit")
    assert is_named("timm:test_vit")


@pytest.mark.parametrize("file", ["", "/encoder.safetensors"])
def test_a_run_that_is_not_done_is_refused(tmp_path, file):
    spec = f"{tmp_path}{file}"
    require_done(spec)  # an exported encoder tells of no state
    (tmp_path / "state.json").write_text(json.dumps({"state": "interrupted"}))
    with pytest.raises(MismatchError, match="is 'interrupted'; finish it or --allow-unfinished"):
        require_done(spec)
    require_done(spec, allow_unfinished=True)
    (tmp_path / "state.json").write_text(json.dumps({"state": "done"}))
    require_done(spec)


def test_a_place_or_name_that_is_not_there_is_refused_at_a_glance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for spec in ("run", "pixels", "test_vit", "s3://bucket/run", "open_clip:ViT-B-32/openai"):
        require_there(spec)
    refused = {
        "some/model": "check the path, or give a published model as timm:NAME",
        "runs/first/encoder.safetensors": "encoder.safetensors does not exist; check the path",
        "timm/vit_base_patch16_224.mae": "given as --encoder timm:vit_base_patch16_224.mae",
        "hf-hub:some/model": "lacks open_clip: before it",
        "timm:vit_none": "nor a name that timm knows",
    }
    for spec, said in refused.items():
        with pytest.raises(MissingDataError, match=re.escape(said)):
            require_there(spec)
    with pytest.raises(ConfigError, match="open_clip:ViT-B-33/openai' is no open_clip model"):
        require_there("open_clip:ViT-B-33/openai")
