"""The teacher: loaded by name, it gives what open_clip and torch say."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.description import visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import TINY_CLIP, native, normalised, pixels, timm_tower, write_tiny_clip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence open_clip, which logs an error before it raises one."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def model(tiny_clip: Path) -> Any:
    return open_clip.create_model(f"local-dir:{tiny_clip}").eval()


@pytest.fixture(scope="module")
def teacher(tiny_clip: Path) -> Teacher:
    return Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}"))


@torch.no_grad()
def test_targets_are_open_clips_tokens(teacher: Teacher, model: Any) -> None:
    targets, prior = teacher(pixels())
    seen = model.visual.forward_intermediates(
        normalised(pixels()), indices=[-1], output_fmt="NLC", output_extra_tokens=True
    )
    tokens = torch.cat([seen["image_intermediates_prefix"][0], seen["image_intermediates"][0]], 1)
    expected = model.visual.ln_post(tokens) @ model.visual.proj
    assert targets.shape == (3, 17, 24)
    assert prior.shape == (3, 16)
    assert targets.dtype == prior.dtype == torch.float32
    torch.testing.assert_close(targets, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_cls_target_is_the_image_embedding(teacher: Teacher, model: Any) -> None:
    expected = model.encode_image(normalised(pixels()), normalize=False)
    torch.testing.assert_close(teacher(pixels())[0][:, 0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def reference_prior(visual: Any, pixels_BCHW: torch.Tensor) -> Any:
    seen = visual.forward_intermediates(
        normalised(pixels_BCHW), indices=[-2], output_fmt="NLC", output_extra_tokens=True
    )
    x = torch.cat([seen["image_intermediates_prefix"][0], seen["image_intermediates"][0]], dim=1)
    block = visual.transformer.resblocks[-1]
    x = block.ln_1(x)
    if not visual.transformer.batch_first:
        x = x.transpose(0, 1)
    _, weights_BNN = block.attn(x, x, x, need_weights=True, average_attn_weights=True)
    return weights_BNN[:, 0, 1:]


def test_priors_are_the_cls_row_of_multihead_attention(teacher: Teacher, model: Any) -> None:
    _, prior = teacher(pixels())
    expected = reference_prior(model.visual, pixels())
    torch.testing.assert_close(prior, expected, atol=1e-6, rtol=0)
    assert bool((prior.sum(-1) < 1).all())
    assert float(prior.std()) > 1e-4


def test_a_batch_is_its_samples(teacher: Teacher) -> None:
    targets, prior = teacher(pixels())
    for number in range(3):
        alone = teacher(pixels()[number : number + 1])
        torch.testing.assert_close(alone[0][0], targets[number], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone[1][0], prior[number], atol=1e-6, rtol=0)


def test_bfloat16_is_near(tiny_clip: Path, teacher: Teacher) -> None:
    rounded = Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}", precision="bf16"))
    targets, prior = rounded(pixels())
    assert targets.dtype == prior.dtype == torch.float32
    exact = teacher(pixels())[0]
    assert bool((torch.cosine_similarity(targets, exact, dim=-1) > 0.99).all())
    assert rounded.identity()["precision"] == "bf16"


def test_the_identity_tells_weights_and_architecture_apart(tiny_clip: Path, tmp_path: Path) -> None:
    def identity(folder: Path) -> dict[str, Any]:
        return Teacher.load(TeacherSpec(name=f"local-dir:{folder}")).identity()

    first = identity(tiny_clip)
    assert first["name"] == "local-dir"
    assert (first["grid"], first["width"], first["heads"]) == ([4, 4], 24, 2)
    assert identity(write_tiny_clip(tmp_path / "same")) == first
    other = identity(write_tiny_clip(tmp_path / "other", seed=1))
    assert other["weights_sha256"] != first["weights_sha256"]
    config = tmp_path / "same" / "open_clip_config.json"
    document = json.loads(config.read_text())
    document["model_cfg"]["quick_gelu"] = True
    config.write_text(json.dumps(document))
    found = identity(tmp_path / "same")
    assert found["architecture"] != first["architecture"]
    assert found == first | {"activation": "QuickGELU", "architecture": found["architecture"]}


@pytest.mark.parametrize(
    "change",
    [
        {"norm_kwargs": {"eps": 0.1}},
        {"final_ln_after_pool": True, "pool_type": "avg"},
        {"act_kwargs": {"approximate": "tanh"}},
    ],
)
def test_what_weights_do_not_tell_is_in_the_identity(
    tiny_clip: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    def identity(changes: dict[str, Any]) -> tuple[Any, Any]:
        document = json.loads((tiny_clip / "open_clip_config.json").read_text())
        document["model_cfg"]["vision_cfg"] |= changes
        folder = write_tiny_clip(tmp_path / "tiny")
        (folder / "open_clip_config.json").write_text(json.dumps(document))
        spec = TeacherSpec(name=f"local-dir:{folder}", prior="uniform")
        loaded = Teacher.load(spec).identity()
        known = visible_identity(spec)["teacher"]
        assert loaded == known | {"weights_sha256": loaded["weights_sha256"]}
        return loaded["architecture"], loaded["weights_sha256"]

    plain, other = identity({}), identity(change)
    assert other[0] != plain[0]
    assert other[1] == plain[1]
    assert identity({"output_tokens": False, "norm_kwargs": None}) == plain  # open_clip's defaults


def test_a_tower_that_is_not_square_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes 32x40 pixels; choose a square one"):
        Teacher(native(image_size=[32, 40]), TeacherSpec(name="x"))


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("ViT-B-17", "openai"),
        ("ViT-B-16", "no-such-tag"),
        ("ViT-B-16", None),
        ("local-dir:/nowhere", None),
        ("ViT-B-16", "/nowhere/weights.pt"),
    ],
)
def test_unknown_names_and_tags_are_refused(name: str, tag: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        Teacher.load(TeacherSpec(name=name, pretrained=tag))
    assert f"--teacher {name!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    config = tiny_clip / "open_clip_config.json"
    (tmp_path / "open_clip_config.json").write_text(config.read_text())
    with pytest.raises(ConfigError, match="has no weights beside its configuration"):
        Teacher.load(TeacherSpec(name=f"local-dir:{tmp_path}"))


def test_the_weights_choose_the_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def create_model(name: str, **options: Any) -> Any:
        made.update(options)
        model = open_clip.model.CLIP(**TINY_CLIP, quick_gelu=options["force_quick_gelu"])
        model.visual.preprocess_cfg = {"mean": (0, 0, 0), "std": (1, 1, 1)}
        return model

    monkeypatch.setattr(open_clip, "create_model", create_model)
    for name, tag, activation in (
        ("ViT-B-16", "openai", "QuickGELU"),
        ("ViT-B-16", "laion2b_s34b_b88k", "GELU"),
        ("ViT-B-16-quickgelu", "openai", "QuickGELU"),
    ):
        assert (
            Teacher.load(TeacherSpec(name=name, pretrained=tag)).identity()["activation"]
            == activation
        )


def test_imagenets_normalisation_is_given_if_asked_for(tiny_clip: Path, model: Any) -> None:
    given = Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}", norm="imagenet"))
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (given.preprocessing()["mean"], given.preprocessing()["std"]) == ([*mean], [*std])
    shown = (pixels() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        expected = model.visual(shown)
    torch.testing.assert_close(given(pixels())[0][:, 0], expected, atol=1e-5, rtol=0)


def test_everything_that_is_asked_for_is_in_the_identity(tiny_clip: Path) -> None:
    def identity(**asked: Any) -> dict[str, Any]:
        given = Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}", **asked))
        return given.identity()

    plain = identity()
    assert plain == {
        "name": "local-dir", "pretrained": None, "weights_sha256": plain["weights_sha256"],
        "architecture": plain["architecture"], "heads": 2, "pooling": "cls", "pool_heads": None,
        "activation": "GELU", "precision": "fp32", "compiled": False, "grid": [4, 4],
        "layers": 1, "space": "projected", "width": 24, "prior": "cls",
    }  # fmt: skip
    assert identity(prior="cls") == plain
    assert identity(layers=2) == plain | {"layers": 2}
    assert identity(space="hidden") == plain | {"space": "hidden", "width": 32}
    assert identity(prior="rollout") == plain | {"prior": "rollout"}
    other = identity(grid=3)
    assert other == plain | {"grid": [3, 3], "weights_sha256": other["weights_sha256"]}


def test_a_process_is_told_its_device_and_that_fp32_is_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    Teacher(native(), TeacherSpec(name="x"))
    assert not torch.backends.cudnn.allow_tf32
    assert chosen == []
    # There is no such device here, so the tower is not moved there; by then it is chosen.
    with contextlib.suppress(RuntimeError, AssertionError):
        Teacher(native(), TeacherSpec(name="x"), device="cuda:3")
    assert chosen == [torch.device("cuda:3")]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["native", "eva02"])
def test_compiled_blocks_compute_the_same(family: str) -> None:
    def teacher(*, compiled: bool) -> Teacher:
        visual = native() if family == "native" else timm_tower(family)
        return Teacher(visual, TeacherSpec(name="x", compile=compiled))

    plain, compiled = teacher(compiled=False), teacher(compiled=True)
    assert compiled.identity() == plain.identity() | {"compiled": True}
    for found, expected in zip(compiled(pixels()), plain(pixels()), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
