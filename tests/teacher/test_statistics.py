"""Mean and std of the teacher's pixels: those that its weights had, or a warning with numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
from safetensors.torch import save_file

from milan_pipeline.errors import ConfigError
from milan_pipeline.images.statistics import NAMED, Statistics, parsed_statistics
from milan_pipeline.teacher import statistics
from milan_pipeline.teacher.description import visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.statistics import settled_statistics
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import NATIVE, TEXT, write_tiny_clip

HALF = Statistics([0.5] * 3, [0.5] * 3)


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    statistics._warn_of_default.cache_clear()


def settled(name: str, pretrained: Path | str | None = None, norm: str = "own") -> Statistics:
    given = None if pretrained is None else str(pretrained)
    return settled_statistics(TeacherSpec(name=name, pretrained=given, norm=norm))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PE-Core-T-16-384", HALF),
        ("ViT-B-16-SigLIP", HALF),
        ("MobileCLIP-S1", Statistics([0.0] * 3, [1.0] * 3)),
        ("ViT-B-16", NAMED["openai"]),
    ],
)
def test_a_file_gets_what_all_published_weights_of_the_architecture_have(
    name: str, expected: Statistics, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert settled(name, weights) == expected
    assert not caplog.records


def test_a_file_of_an_architecture_whose_weights_differ_is_warned_of(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert settled("ViT-L-14", weights) == NAMED["openai"]
    (record,) = caplog.records
    for words in ("mine.safetensors", "ViT-L-14", "0.481455,", "--teacher-norm"):
        assert words in record.getMessage()


def test_a_file_that_the_registry_knows_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = tmp_path / "models--laion--CLIP-ViT-L-14-laion2B-s32B-b82K" / "snapshots" / "0"
    hub.mkdir(parents=True)
    path = hub / "open_clip_pytorch_model.bin"
    path.write_bytes(b"weights")
    assert settled("ViT-L-14", path) == HALF
    assert not caplog.records


def test_tags_have_their_own(caplog: pytest.LogCaptureFixture) -> None:
    assert settled("ViT-L-14", "openai") == NAMED["openai"]
    assert settled("ViT-L-14", "laion2b_s32b_b82k") == HALF
    assert not caplog.records


def folder(place: Path, preprocess: Any) -> str:
    write_tiny_clip(place)
    path = place / "open_clip_config.json"
    document = json.loads(path.read_text())
    document["preprocess_cfg"] = preprocess
    if preprocess is ...:
        del document["preprocess_cfg"]
    path.write_text(json.dumps(document))
    return f"local-dir:{place}"


@pytest.mark.parametrize("preprocess", [..., None, {}, {"mean": [0.1, 0.2, 0.3]}])
def test_a_folder_without_them_is_warned_of_and_takes_them_by_option(
    preprocess: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = folder(tmp_path / "clip", preprocess)
    given = Teacher.load(TeacherSpec(name=name))
    assert given.std == NAMED["openai"].std
    stated = preprocess and preprocess is not ...
    assert given.mean == ([0.1, 0.2, 0.3] if stated else NAMED["openai"].mean)
    (record,) = caplog.records
    assert "open_clip_config.json, so that those of OpenAI's CLIP are taken" in record.getMessage()
    caplog.clear()
    asked = TeacherSpec(name=name, norm="0.65,0.58,0.51/0.25")
    given = Teacher.load(asked)
    assert (given.mean, given.std) == ([0.65, 0.58, 0.51], [0.25] * 3)
    assert given.preprocessing() == visible_identity(asked)["preprocessing"]
    assert not caplog.records


@pytest.mark.parametrize(
    "preprocess",
    [
        "x", [1], {"mean": 0.5, "std": 0.5}, {"mean": [123, 116, 103], "std": [58, 57, 57]},
        {"mean": [0.5] * 3, "std": [0, 0, 0]}, {"mean": [0.5] * 2, "std": [0.5] * 2},
    ],
)  # fmt: skip
def test_a_folder_that_states_what_cannot_be_is_refused(preprocess: Any, tmp_path: Path) -> None:
    name = folder(tmp_path / "clip", preprocess)
    for read in (settled, lambda name: Teacher.load(TeacherSpec(name=name))):
        with pytest.raises(
            ConfigError, match=r"no mean and std as they must .*; fix preprocess_cfg"
        ):
            read(name)


@pytest.fixture
def unpublished() -> Iterator[str]:
    """An architecture that open_clip has by name, without any tag."""
    config = {"embed_dim": 24, "vision_cfg": NATIVE, "text_cfg": TEXT}
    open_clip.factory._MODEL_CONFIGS["unpublished"] = config
    yield "unpublished"
    del open_clip.factory._MODEL_CONFIGS["unpublished"]


def test_an_unpublished_architecture_is_warned_of(
    unpublished: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(open_clip.CLIP(24, NATIVE, TEXT).state_dict(), path)
    given = Teacher.load(TeacherSpec(name=unpublished, pretrained=str(path), norm="0/1"))
    assert (given.mean, given.std) == ([0.0] * 3, [1.0] * 3)
    assert not caplog.records
    Teacher.load(TeacherSpec(name=unpublished, pretrained=str(path)))
    assert "states no mean and std" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.5/0.5", HALF), ("0,0,0/1", Statistics([0.0] * 3, [1.0] * 3)), ("openai", NAMED["openai"])],
)
def test_they_are_written_as_they_are_read(text: str, expected: Statistics) -> None:
    assert parsed_statistics(text) == expected
    assert parsed_statistics(str(HALF)) == HALF


@pytest.mark.parametrize("text", ["", "0.5", "a/b", "0.5/", "0.1,0.2/1", "0.5/nan", "-1/1", "0/0"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|does)"):
        parsed_statistics(text)
