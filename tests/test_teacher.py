"""The teacher: equal to what open_clip and torch say, or refused.

Legend: B batch, N = 1 + L tokens (CLS first), W tower width, H heads.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from milan_pipeline import teacher as teacher_module
from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher import Teacher, describe_teacher
from milan_pipeline.teacher_spec import TeacherSpec
from tests.conftest import TINY_CLIP, write_tiny_clip

VISION: dict[str, Any] = TINY_CLIP["vision_cfg"]  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence open_clip, which logs an error before it raises one."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def pixels(batch: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, generator=random)


def normalised(pixels_BCHW: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    std = torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    return (pixels_BCHW / 255 - mean) / std


def tower(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = TINY_CLIP | {"vision_cfg": VISION | changes}
    visual = open_clip.model.CLIP(**config).visual.eval()
    visual.preprocess_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    return visual


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


@pytest.mark.parametrize("batch_first", [True, False])
def test_both_layouts_of_the_tower(batch_first: bool) -> None:
    visual = tower()
    visual.transformer.batch_first = batch_first
    for block in visual.transformer.resblocks:
        block.attn.batch_first = batch_first
    given = Teacher(visual, TeacherSpec(name="x"))
    targets, prior = given(pixels())
    torch.testing.assert_close(targets[:, 0], visual(normalised(pixels())), atol=1e-5, rtol=0)
    torch.testing.assert_close(prior, reference_prior(visual, pixels()), atol=1e-6, rtol=0)


class Shapes(TorchDispatchMode):
    """Note the shape of every tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else [result]:
            if isinstance(item, torch.Tensor):
                self.seen.add(tuple(item.shape))
        return result


@torch.no_grad()
def test_only_the_cls_row_is_computed(teacher: Teacher) -> None:
    block = teacher._visual.transformer.resblocks[-1]
    x_BNW = torch.randn(3, 17, 32)
    with Shapes() as ours:
        prior = teacher_module._cls_attention(block, x_BNW)
    with Shapes() as full:
        block.attn(x_BNW, x_BNW, x_BNW, need_weights=True)

    def has_square(shapes: set[tuple[int, ...]]) -> bool:
        return any(shape.count(17) >= 2 for shape in shapes)

    assert prior.shape == (3, 16)
    assert has_square(full.seen)
    assert not has_square(ours.seen)


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
    assert identity(tmp_path / "same") == first | {"activation": "QuickGELU"}


@pytest.mark.parametrize(
    "changes",
    [
        {"pool_type": "avg"},
        {"final_ln_after_pool": True, "pool_type": "avg"},
        {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
        {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
        {"timm_model_name": "vit_tiny_patch16_224", "image_size": 32, "timm_pool": "token"},
        {"block_type": "custom", "qk_norm": True},
    ],
)
def test_other_towers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^--teacher 'x' has no CLS token over plain") as caught:
        Teacher(tower(**changes), TeacherSpec(name="x"))
    assert str(caught.value).count("\n") == 0


def test_a_tower_that_is_not_square_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes 32x40 pixels; choose a square one"):
        Teacher(tower(image_size=[32, 40]), TeacherSpec(name="x"))


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
    assert str(caught.value).startswith(f"--teacher {name!r}")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    config = tiny_clip / "open_clip_config.json"
    (tmp_path / "open_clip_config.json").write_text(config.read_text())
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Teacher.load(TeacherSpec(name=f"local-dir:{tmp_path}"))


def test_the_shape_is_known_without_weights(tiny_clip: Path) -> None:
    assert describe_teacher(TeacherSpec(name=f"local-dir:{tiny_clip}")) == (32, (4, 4), 24)
    assert describe_teacher(TeacherSpec(name="ViT-B-16")) == (224, (14, 14), 512)


@pytest.mark.parametrize("name", ["ViT-B-17", "RN50", "local-dir:/nowhere", "vit_medium_patch16"])
def test_no_shape_is_made_up(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--teacher '{name}'"):
        describe_teacher(TeacherSpec(name=name))


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
        ("local-dir:x", None, "GELU"),
    ):
        assert (
            Teacher.load(TeacherSpec(name=name, pretrained=tag)).identity()["activation"]
            == activation
        )


def test_an_activation_that_the_weights_do_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {"quick_gelu": False, "url": ""}
    monkeypatch.setattr(teacher_module, "get_pretrained_cfg", lambda *_: plain)
    with pytest.raises(ConfigError, match="leave -quickgelu away"):
        Teacher.load(TeacherSpec(name="ViT-B-16-quickgelu", pretrained="some-tag"))
