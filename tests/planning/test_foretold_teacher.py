"""What is foretold of a teacher is what its tower says once it is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest

from milan_pipeline.errors import ConfigError
from milan_pipeline.planning.foretold_teacher import ANY_HASH, foretold
from milan_pipeline.planning.teacher_speed import multiply_adds
from milan_pipeline.teacher.description import visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from tests.support.clip import write_tiny_clip

PLAIN = [name for name in open_clip.list_models() if foretold(TeacherSpec(name=name)) is not None]
FEW = [
    TeacherSpec(name="ViT-B-16", pretrained="openai", precision="bf16"),
    TeacherSpec(name="ViT-B-32", pretrained="laion2b_s34b_b79k", space="hidden", layers=3),
    TeacherSpec(name="ViT-B-32-quickgelu", prior="uniform", norm="imagenet", compile=True),
    TeacherSpec(name="ViT-M-32-alt", grid=3),
]


def built(spec: TeacherSpec) -> dict[str, dict[str, Any]]:
    """Return what the tower says, without the hash of its configuration."""
    found = visible_identity(spec)
    assert len(found["teacher"]["architecture"]) == len(ANY_HASH)
    return found | {"teacher": found["teacher"] | {"architecture": ANY_HASH}}


@pytest.mark.parametrize("spec", FEW, ids=lambda spec: spec.name)
def test_a_few_of_open_clip(spec: TeacherSpec) -> None:
    assert json.dumps(light(spec)) == json.dumps(built(spec))


def light(spec: TeacherSpec) -> dict[str, dict[str, Any]]:
    """Return what is foretold."""
    found = foretold(spec)
    assert found is not None
    return found.identity()


def said(read: Callable[[TeacherSpec], Any], spec: TeacherSpec) -> str:
    """Return what is known of a teacher, or why it is refused."""
    try:
        return json.dumps(read(spec))
    except ConfigError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_all_of_open_clip(name: str) -> None:
    for tag in (None, *open_clip.list_pretrained_tags_by_model(name)):
        spec = TeacherSpec(name=name, pretrained=tag)
        assert said(light, spec) == said(built, spec)


@pytest.mark.parametrize("space", ["projected", "hidden"])
@pytest.mark.parametrize("prior", ["auto", "uniform"])
def test_multiply_adds(tmp_path: Path, space: str, prior: str) -> None:
    clip = write_tiny_clip(tmp_path / "clip", image_size=56)
    for grid in (None, 3):
        spec = TeacherSpec(name=f"local-dir:{clip}", space=space, prior=prior, grid=grid)
        found = foretold(spec)
        assert found is not None
        assert found.multiply_adds() == multiply_adds(spec)
        assert json.dumps(found.identity()) == json.dumps(built(spec))


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "RN50"},
        {"name": "coca_ViT-B-32"},
        {"name": "ViT-B-16-SigLIP"},
        {"name": "timm:vit_tiny_patch16_224"},
        {"name": "ViT-B-16", "layers": 13},
        {"name": "ViT-B-16", "prior": "rollout"},
        {"name": "ViT-B-16", "prior": "pool"},
    ],
    ids=lambda asked: " ".join(map(str, asked.values())),
)
def test_what_must_be_built_is_not_foretold(asked: dict[str, Any]) -> None:
    assert foretold(TeacherSpec(**asked)) is None


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": "ViT-nonsense"}, "is no open_clip model"),
        ({"name": "ViT-B-16", "pretrained": "nonsense"}, "neither a file nor a tag"),
        ({"name": "ViT-B-16-quickgelu", "pretrained": "laion2b_s34b_b88k"}, "neither a file nor"),
    ],
)
def test_what_is_refused_is_refused_here_too(asked: dict[str, Any], reason: str) -> None:
    spec = TeacherSpec(**asked)
    for ask in (foretold, visible_identity):
        with pytest.raises(ConfigError, match=reason):
            ask(spec)
