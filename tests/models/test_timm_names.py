"""Names of models that are read from timm's files are timm's."""

import sys

import pytest
import timm

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.timm_names import is_model, require_model, tagged_vit_names, vit_names


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have timm not be loaded."""
    monkeypatch.delitem(sys.modules, "timm")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "name",
    [
        *("test_vit", "vit_base_patch16_224", "xception71"),
        "vit_tiny_patch16_224_in21k",  # an old name
        *("vit_base_patch16_225", "", "vit.*", "vit_base_patch16_224.mae"),
    ],
)
def test_without_timm_its_files_are_searched(name: str) -> None:
    known = "." not in name and timm.is_model(name)
    assert is_model(name) is known
    assert "timm" not in sys.modules


def test_a_model_that_a_program_adds_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "is_model", lambda name: name == "mine")
    assert is_model("mine")


def test_lists_of_vits_are_a_part_of_timms() -> None:
    assert set(vit_names()) <= set(timm.list_models(include_tags=False))
    assert {"vit_base_patch16_224", "test_vit"} <= set(vit_names())
    assert "vit_base_patch16_224.mae" in tagged_vit_names()


def test_a_student_that_is_misspelt_is_refused_with_what_is_like_it() -> None:
    require_model("test_vit")
    with pytest.raises(ConfigError, match="did you mean 'vit_small_patch16_224'"):
        require_model("vit_smal_patch16_224")
