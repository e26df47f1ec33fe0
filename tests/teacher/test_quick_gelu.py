"""Weights that were trained with QuickGELU get it, or are refused without, by every route."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher import published_weights as registry
from milan_pipeline.teacher.configuration import model_config
from milan_pipeline.teacher.published_weights import said_of_file
from milan_pipeline.teacher.quick_gelu import settle_quick_gelu, trained_with_quick_gelu
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import NATIVE, TEXT, write_tiny_clip

HUB = "vit_base_patch16_clip_224.openai"


def settled(name: str, pretrained: str | None = None) -> bool:
    return settle_quick_gelu(name, pretrained, model_config(name))


@pytest.mark.parametrize(
    ("name", "tag", "has"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B-16-quickgelu", "openai", True),
        ("ViT-B-16-quickgelu", "dfn2b", True),
        ("ViT-B-16", "dfn2b", True),
        ("ViT-H-14-378", "dfn5b", True),
        ("ViT-B-32", "metaclip_fullcc", True),
        ("ViT-L-14", "datacomp_xl_s13b_b90k", False),
        ("RN50", "openai", True),
        # Its configuration says so, its tag does not; there is no such model without.
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", True),
        ("ViT-B-16-SigLIP", "webli", False),
        ("ViT-B-16", None, False),
        ("ViT-B-16-quickgelu", None, True),
    ],
)
def test_the_tag_decides_for_a_plain_name(name: str, tag: str | None, has: bool) -> None:
    assert settled(name, tag) is has


def test_a_tag_that_was_trained_without_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = open_clip.pretrained._PRETRAINED["ViT-B-16-quickgelu"]
    monkeypatch.setitem(tags, "some_tag", {"quick_gelu": False})
    with pytest.raises(ConfigError, match=r"were trained without; leave out -quickgelu$"):
        settled("ViT-B-16-quickgelu", "some-tag")


def test_the_registry_knows_weights_by_name_repository_and_hash() -> None:
    known = {
        word: registry.common(found, lambda entry: bool(entry.get("quick_gelu", False)))
        for word, found in registry.entries().items()
    }
    for word in (
        "ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        f"timm/{HUB}",
        HUB,
        "apple/DFN2B-CLIP-ViT-B-16",
        "b16_400m.pt",
        "d867053b",
    ):
        assert known[word] is True
    for word in ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "vit_b_16-laion400m_e32-55e67d44.pt"):
        assert known[word] is False
    assert known.get("pytorch_model.bin") is None


@pytest.mark.parametrize(
    "place",
    [
        "ViT-B-16.pt",
        f"models--timm--{HUB}/snapshots/0/open_clip_model.safetensors",
        f"{HUB}/open_clip_model.safetensors",
        "b16_fullcc2.5b.pt",
    ],
)
def test_files_of_the_registry_must_fit(place: str, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    assert trained_with_quick_gelu(path) is True
    assert settled("ViT-B-16-quickgelu", str(path)) is True
    with pytest.raises(ConfigError, match=r"QuickGELU; give --teacher ViT-B-16-quickgelu$"):
        settled("ViT-B-16", str(path))


def test_files_of_the_registry_that_were_trained_without(tmp_path: Path) -> None:
    path = tmp_path / "vit_b_16-laion400m_e32-55e67d44.pt"
    path.touch()
    assert settled("ViT-B-16", str(path)) is False
    with pytest.raises(ConfigError, match=r"trained with plain GELU; give --teacher ViT-B-16$"):
        settled("ViT-B-16-quickgelu", str(path))


@pytest.mark.parametrize("digits", [8, 64])
def test_files_are_known_by_their_hash(digits: int, tmp_path: Path) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()[:digits]
    known = {digest: [{"quick_gelu": True}]}
    assert said_of_file(path, lambda entry: entry["quick_gelu"], lambda: known) is True
    path.write_bytes(b"others")
    assert said_of_file(path, lambda entry: entry["quick_gelu"], lambda: known) is None


def test_files_that_nobody_knows_are_taken_at_the_configurations_word(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.touch()
    assert settled("ViT-B-16", str(path)) is False
    assert settled("ViT-B-16-quickgelu", str(path)) is True


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-16-quickgelu"])
def test_torchscript_archives_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "renamed.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for member in ("data.pkl", "constants.pkl", "code/__torch__/model.py"):
            archive.writestr(f"renamed/{member}", "")
    with pytest.raises(ConfigError, match=r"TorchScript archive, .* give --pretrained openai"):
        settled(name, str(path))


def test_a_file_of_plain_weights_is_no_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    assert settled("ViT-B-16", str(path)) is False


@pytest.fixture
def tiny_model() -> Iterator[str]:
    """A tiny model that open_clip has by name."""
    config = {"embed_dim": 24, "vision_cfg": NATIVE, "text_cfg": TEXT}
    open_clip.factory._MODEL_CONFIGS["tiny"] = config
    yield "tiny"
    del open_clip.factory._MODEL_CONFIGS["tiny"]


def test_a_checkpoint_file_is_loaded_or_refused(tiny_model: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(open_clip.CLIP(24, NATIVE, TEXT).state_dict(), path)
    given = Teacher.load(TeacherSpec(name=tiny_model, pretrained=str(path)))
    assert given.identity()["activation"] == "GELU"
    known = shutil.copy(path, tmp_path / "ViT-B-16.pt")
    with pytest.raises(ConfigError, match=r"give --teacher tiny-quickgelu$"):
        Teacher.load(TeacherSpec(name=tiny_model, pretrained=str(known)))


def folder(place: Path, **model: Any) -> str:
    write_tiny_clip(place)
    config = place / "open_clip_config.json"
    document = json.loads(config.read_text())
    document["model_cfg"] |= model
    config.write_text(json.dumps(document))
    return f"local-dir:{place}"


def test_a_folder_says_itself_what_its_weights_need(tmp_path: Path) -> None:
    for value, activation in ((True, "QuickGELU"), (False, "GELU")):
        name = folder(tmp_path / "clip", quick_gelu=value)
        assert Teacher.load(TeacherSpec(name=name)).identity()["activation"] == activation


@pytest.mark.parametrize(
    ("where", "says"), [(HUB, False), ("CLIP-ViT-B-16-DataComp.XL-s13B-b90K", True)]
)
def test_a_folder_that_is_known_otherwise_is_refused(
    where: str, says: bool, tmp_path: Path
) -> None:
    name = folder(tmp_path / where, quick_gelu=says)
    with pytest.raises(ConfigError, match=f"set quick_gelu to {str(not says).lower()} under"):
        Teacher.load(TeacherSpec(name=name))
    assert settled(folder(tmp_path / where, quick_gelu=not says)) is not says


def test_a_hub_repository_that_is_known_otherwise_is_refused() -> None:
    config: dict[str, Any] = {"vision_cfg": NATIVE}
    with pytest.raises(ConfigError, match=r"configured with plain GELU, .* set quick_gelu to true"):
        settle_quick_gelu(f"hf-hub:timm/{HUB}", None, config)
    assert settle_quick_gelu(f"hf-hub:timm/{HUB}", None, config | {"quick_gelu": True})
    assert not settle_quick_gelu("hf-hub:some/body", None, config)
