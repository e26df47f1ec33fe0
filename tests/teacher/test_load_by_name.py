"""Models by name: another grid as open_clip makes it, shapes without weights, clear errors."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.description import describe_teacher, visible_identity
from milan_pipeline.teacher.load_by_name import blank_visual, load_visual, require_weights
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import NATIVE, embedding, folder_of, native, pixels, smaller

# What other grids a family's tiny tower is asked for, and the pixels that they take.
GRIDS = {
    "native": (6, 48), "siglip": (6, 48), "eva02": (6, 48), "pe": (3, 24), "gap": (6, 48),
    "relpos": (6, 48), "vitamin": (6, 96), "convnext": (3, 96), "swin": (4, 128),
    "fastvit": (3, 96),
}  # fmt: skip
Folder = tuple[str, str]


def shrunk(family: str) -> Any:
    return smaller(family if family != "native" else "convnext")


@pytest.fixture(scope="module", params=GRIDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A tiny model of each family."""
    family = request.param
    with shrunk(family):
        return family, folder_of(family, tmp_path_factory.mktemp(family))


def test_a_name_that_does_not_tell_the_weights_is_refused_before_they_are_loaded() -> None:
    with pytest.raises(ConfigError, match="give --pretrained, for example openai"):
        require_weights(TeacherSpec(name="ViT-B-16"))
    require_weights(TeacherSpec(name="hf-hub:org/repository"))


# timm's own, where it resamples Swin's position biases.
@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
def test_another_grid_is_what_open_clip_makes_of_the_image_size(folder: Folder) -> None:
    family, name = folder
    grid, size = GRIDS[family]
    with shrunk(family):
        given = Teacher.load(TeacherSpec(name=name, grid=grid, prior="uniform"))
        expected = open_clip.create_model(name, force_image_size=size).eval().visual
        shape = describe_teacher(TeacherSpec(name=name, grid=grid, prior="uniform"))
    assert shape == (given.image_size, given.grid, given.width)
    assert (given.image_size, given.grid) == (size, (grid, grid))
    assert given.preprocessing()["size"] == size
    assert given.identity()["grid"] == [grid, grid]
    targets, _ = given(pixels(size))
    assert targets.shape[1] == 1 + grid * grid
    torch.testing.assert_close(targets[:, 0], embedding(expected, pixels(size)), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")
def test_resampled_positions_are_not_hashed(folder: Folder) -> None:
    family, name = folder
    asked = TeacherSpec(name=name, grid=GRIDS[family][0], prior="uniform")
    with shrunk(family):
        own, other = load_visual(dataclasses.replace(asked, grid=None)), load_visual(asked)
    expected = Teacher(other, asked).weights_sha256
    changed = [
        key for key, tensor in other.state_dict().items()
        if not torch.equal(tensor, own.state_dict()[key])
    ]  # fmt: skip
    for key in changed:
        other.state_dict()[key].view(-1)[0] += 1
    assert Teacher(other, asked).weights_sha256 == expected
    list(other.parameters())[-1].data += 1
    assert Teacher(other, asked).weights_sha256 != expected


@pytest.mark.parametrize("family", ["native", "siglip", "convnext"])
def test_its_own_grid_changes_nothing(family: str, tmp_path: Path) -> None:
    own = {"native": 4, "siglip": 4, "convnext": 2}[family]
    with shrunk(family):
        name = folder_of(family, tmp_path)
        asked = TeacherSpec(name=name, grid=own, prior="uniform")
        assert Teacher.load(asked).identity() == (
            Teacher.load(TeacherSpec(name=name, prior="uniform")).identity()
        )


@pytest.mark.parametrize(("family", "size", "seen"), [("native", 37, 32), ("convnext", 70, 64)])
def test_an_input_that_is_no_multiple_of_its_patch_is_what_its_tokens_see(
    family: str, size: int, seen: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As SO400M/14 at 384 pixels, the last of which no token sees; at 378 it is the same tower."""
    with shrunk(family):
        name = folder_of(family, tmp_path)
        path = tmp_path / "open_clip_config.json"
        document = json.loads(path.read_text())
        document["model_cfg"]["vision_cfg"]["image_size"] = size
        path.write_text(json.dumps(document))
        expected = open_clip.create_model(name, force_image_size=seen).eval().visual
        grid = describe_teacher(TeacherSpec(name=name, prior="uniform")).grid[0]
        for asked in (None, grid):
            spec = TeacherSpec(name=name, prior="uniform", grid=asked)
            given = Teacher.load(spec)
            assert given.image_size == describe_teacher(spec).image_size == seen
            assert given.preprocessing()["size"] == seen
            assert given.identity()["grid"] == [grid, grid]
            shown = pixels(seen)
            torch.testing.assert_close(
                given(shown)[0][:, 0], embedding(expected, shown), atol=1e-5, rtol=0
            )
            for row, column in ((0, -1), (-1, 0)):  # each edge is seen
                other = shown.clone()
                other[:, :, row, column] ^= 255
                assert not torch.equal(given(other)[0][:, 1:], given(shown)[0][:, 1:])
    assert f"takes {size} pixels" in caplog.text
    assert f"views of {seen} pixels" in caplog.text


def test_what_is_known_without_weights_is_what_the_weights_then_say(folder: Folder) -> None:
    family, name = folder
    with shrunk(family):
        for norm, space in (("own", "projected"), ("imagenet", "hidden")):
            spec = TeacherSpec(name=name, norm=norm, space=space, prior="uniform")
            known, given = visible_identity(spec), Teacher.load(spec)
            teacher = given.identity()
            assert teacher.pop("weights_sha256")
            assert known["teacher"] == teacher
            assert given.preprocessing() == given.preprocessing() | known["preprocessing"]


# name -> pixels, grid and width of the model as it is published.
@pytest.mark.parametrize(
    ("name", "prior", "shape"),
    [
        ("ViT-B-16", "cls", (224, (14, 14), 512)),
        ("ViT-M-16-alt", "cls", (224, (14, 14), 384)),
        ("ViT-L-14-CLIPA", "uniform", (224, (16, 16), 768)),
        ("coca_ViT-L-14", "pool", (224, (16, 16), 768)),
        ("RN50", "pool", (224, (7, 7), 1024)),
        ("ViT-B-16-SigLIP", "pool", (224, (14, 14), 768)),
        ("EVA02-B-16", "cls", (224, (14, 14), 512)),
        ("PE-Core-T-16-384", "pool", (384, (24, 24), 512)),
        ("MobileCLIP-B", "cls", (224, (14, 14), 512)),
        ("vit_relpos_medium_patch16_cls_224", "cls", (224, (14, 14), 512)),
        ("ViTamin-S", "rollout", (224, (14, 14), 384)),
        ("convnext_tiny", "uniform", (224, (7, 7), 1024)),
    ],
)
def test_published_models_have_a_shape(name: str, prior: str, shape: tuple[Any, ...]) -> None:
    known = visible_identity(TeacherSpec(name=name, prior=prior))
    teacher = known["teacher"]
    assert (known["preprocessing"]["size"], tuple(teacher["grid"]), teacher["width"]) == shape
    assert teacher["prior"] == prior


def test_a_large_model_at_the_grid_of_a_students() -> None:
    assert describe_teacher(TeacherSpec(name="ViT-L-14", grid=14)) == (196, (14, 14), 768)
    wide = TeacherSpec(name="ViT-L-14", grid=14, space="hidden")
    assert describe_teacher(wide) == (196, (14, 14), 1024)


def test_a_tower_without_weights_takes_no_memory() -> None:
    visual = blank_visual(TeacherSpec(name="ViT-bigG-14"))
    assert {parameter.device.type for parameter in visual.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (TeacherSpec(name="ViT-B-17"), "is no open_clip model"),
        (TeacherSpec(name="vit_medium_patch16"), "is no open_clip model"),
        (TeacherSpec(name="local-dir:/nowhere"), "has no readable configuration"),
        (TeacherSpec(name="RN50", grid=14), "whose pooling has positions for 7x7 only"),
        (TeacherSpec(name="ViT-B-16", layers=13), "^--layers 13 is more than .*; give 12 or less$"),
        (TeacherSpec(name="ViT-B-16", prior="pool"), "needs a tower with attention pooling"),
        (TeacherSpec(name="RN50", space="hidden"), "^--space hidden is not to be had"),
    ],
)
def test_no_shape_is_made_up(spec: TeacherSpec, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        describe_teacher(spec)


@pytest.mark.parametrize(
    ("file", "text", "given"),
    [
        ("open_clip_config.json", "{}", "local-dir:{}, which is a CLIP of open_clip"),
        ("state.json", "{}", "run:{}, which is a run"),
        (
            "config.json",
            '{"architecture": "x", "pretrained_cfg": {}}',
            "timm:local-dir:{}, which is a model of timm",
        ),
    ],
)
def test_a_folder_of_another_form_is_told(file: str, text: str, given: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    for kind in ("", "local-dir:", "timm:local-dir:"):
        if given.startswith(kind + "{}") or (kind and given.startswith(kind)):
            continue
        with pytest.raises(ConfigError, match=f"give {given.format(tmp_path)}$"):
            describe_teacher(TeacherSpec(name=f"{kind}{tmp_path}", pretrained=None))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"embed_dim": 8}, "a configuration without vision_cfg and embed_dim"),
        ({"embed_dim": 8, "vision_cfg": {"wdith": 8}}, "that open_clip cannot build"),
        (
            {"embed_dim": 8, "vision_cfg": {"timm_model_name": "no_such"}},
            "that open_clip cannot build",
        ),
        ({"embed_dim": 8, "vision_cfg": NATIVE | {"image_size": [32, 40]}}, "takes 32x40 pixels"),
    ],
)
def test_folders_of_something_else_are_refused(
    model: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    with pytest.raises(ConfigError, match=said) as caught:
        describe_teacher(TeacherSpec(name=f"local-dir:{tmp_path}"))
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    name = folder_of("native", tmp_path)
    save_file(native(width=64).state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ConfigError, match="does not fit the architecture") as caught:
        load_visual(TeacherSpec(name=name))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_tag_is_told_to_name_one() -> None:
    with pytest.raises(ConfigError, match="give --pretrained, for example openai"):
        load_visual(TeacherSpec(name="ViT-B-16"))


def test_a_folder_hides_no_model_of_open_clip(tmp_path, monkeypatch):
    """Runs are often called by their teacher."""
    monkeypatch.chdir(tmp_path)
    for name in ("ViT-B-16", "ViT-B-17"):
        (tmp_path / name).mkdir()
    require_weights(TeacherSpec(name="ViT-B-16", pretrained="openai"))
    with pytest.raises(ConfigError, match="'ViT-B-17' is a folder; give local-dir:"):
        require_weights(TeacherSpec(name="ViT-B-17", pretrained="openai"))
