"""Tables that are read without open_clip are open_clip's."""

import sys

import open_clip
import pytest
from open_clip.pretrained import get_pretrained_cfg

from milan_pipeline.teacher import open_clip_tables
from milan_pipeline.teacher.open_clip_tables import (
    all_published,
    architecture,
    published,
    tags_of,
)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have open_clip not be loaded."""
    for name in ("open_clip", "open_clip.factory", "open_clip.pretrained"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("alone")
def test_read_alone_they_are_the_same() -> None:
    names = [*open_clip.list_models(), "ViT-nonsense", "../model_configs/ViT-B-16"]
    for name in names:
        assert architecture(name) == open_clip.get_model_config(name)
        assert tags_of(name) == open_clip.list_pretrained_tags_by_model(name)
    assert all_published() == open_clip.list_pretrained()
    for name, tag in all_published():
        assert published(name, tag) == get_pretrained_cfg(name, tag) != {}
    assert published("ViT-B-16", "nonsense") == published("nonsense", "openai") == {}
    assert "open_clip" not in sys.modules


def test_what_a_program_adds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "mine", {"embed_dim": 8})
    assert architecture("mine") == {"embed_dim": 8}


@pytest.mark.usefixtures("alone")
def test_a_file_of_another_form_has_open_clip_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_clip_tables, "FILES", ("constants.py",))
    open_clip_tables._read_alone.cache_clear()
    assert tags_of("ViT-B-16") == open_clip.list_pretrained_tags_by_model("ViT-B-16")
    open_clip_tables._read_alone.cache_clear()
