"""Models of timm as teachers: features and priors against the model's own, pixels, weights."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import open_clip.pretrained
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed_sincos import apply_rot_embed_cat

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.description import describe_teacher, visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import MEAN, STD, normalised, pixels
from tests.support.timm_teachers import (
    AVERAGING_ALONE,
    FAMILIES,
    LICENCE,
    POOLED_BY,
    TINY,
    tiny_model,
    write_timm,
)

PRIORS = {"siglip2": "pool", "pe-core": "pool"}
WITH_CLS = [family for family in FAMILIES if not family.startswith("siglip2")]


def teacher(family: str, folder: Path, **asked: Any) -> tuple[Teacher, Any, torch.Tensor]:
    """A teacher by name, timm's own model of the same weights, and views of its size."""
    name = write_timm(folder, family)
    if family in AVERAGING_ALONE:
        asked = {"prior": "uniform", **asked}
    own = timm.create_model(name.removeprefix("timm:"), pretrained=True).eval()
    given = Teacher.load(TeacherSpec(name=name, **asked))
    return given, own, pixels(given.image_size)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_targets_are_the_models_own_normalised_patches(family: str, tmp_path: Path) -> None:
    given, own, shown = teacher(family, tmp_path)
    tokens = own.fc_norm(own.forward_features(normalised(shown)))
    targets, prior = given(shown)
    assert own.num_prefix_tokens + prior.shape[1] == tokens.shape[1]
    patches = tokens[:, own.num_prefix_tokens :]
    torch.testing.assert_close(targets[:, 1:], patches, atol=1e-5, rtol=0)
    pooling = POOLED_BY.get(family, "cls")
    identity = given.identity()
    assert (identity["pooling"], identity["space"]) == (pooling, "hidden")
    if pooling == "cls":
        torch.testing.assert_close(targets[:, 0], tokens[:, 0], atol=1e-5, rtol=0)
    else:
        image = own.forward_head(own.forward_features(normalised(shown)), pre_logits=True)
        torch.testing.assert_close(targets[:, 0], image, atol=1e-5, rtol=0)


@torch.no_grad()
def first_row(own: Any, shown: torch.Tensor) -> torch.Tensor:
    """(B, N): the softmaxed scores of the first token's query with every key, mean of the heads."""
    attention = own.blocks[-1].attn
    seen: dict[str, Any] = {}

    def keep(_module: Any, args: Any, kwargs: Any) -> None:
        seen.update(kwargs, x=args[0])

    hook = attention.register_forward_pre_hook(keep, with_kwargs=True)
    own.forward_features(normalised(shown))
    hook.remove()
    x_BNW, heads = seen["x"], attention.num_heads
    if getattr(attention, "qkv", None) is None:
        q_BNW, k_BNW = attention.q_proj(x_BNW), attention.k_proj(x_BNW)
    else:
        q_BNW, k_BNW, _ = (x_BNW @ attention.qkv.weight.mT).chunk(3, dim=-1)
        q_bias = getattr(attention, "q_bias", None)
        if attention.qkv.bias is not None:
            q_bias, k_bias, _ = attention.qkv.bias.chunk(3)
            k_BNW = k_BNW + k_bias
        q_BNW = q_BNW if q_bias is None else q_BNW + q_bias
    q, k = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q_BNW, k_BNW))
    q, k = (
        getattr(attention, f"{n}_norm", torch.nn.Identity())(x) for n, x in (("q", q), ("k", k))
    )
    if seen.get("rope") is not None:
        prefix, half = attention.num_prefix_tokens, attention.rotate_half
        q, k = (
            torch.cat(
                [x[:, :, :prefix], apply_rot_embed_cat(x[:, :, prefix:], seen["rope"], half=half)],
                dim=2,
            )
            for x in (q, k)
        )
    scores_BHN = (q[:, :, :1] @ k.mT * q.shape[-1] ** -0.5)[:, :, 0]
    if seen.get("shared_rel_pos_bias") is not None or hasattr(attention, "_get_rel_pos_bias"):
        scores_BHN = scores_BHN + attention._get_rel_pos_bias()[:, :, 0]
    row_BN: torch.Tensor = scores_BHN.softmax(dim=-1).mean(dim=1)
    return row_BN


@pytest.mark.parametrize("family", WITH_CLS)
def test_the_cls_prior_is_the_attention_without_prefix_tokens(family: str, tmp_path: Path) -> None:
    given, own, shown = teacher(family, tmp_path, prior="cls")
    _, prior = given(shown)
    expected = first_row(own, shown)[:, own.num_prefix_tokens :]
    torch.testing.assert_close(prior, expected, atol=1e-5, rtol=0)
    assert float(prior.std()) > 1e-3


@pytest.mark.parametrize("family", ["siglip2", "pe-core"])
@torch.no_grad()
def test_the_pool_prior_is_the_attention_of_the_latent(family: str, tmp_path: Path) -> None:
    given, own, shown = teacher(family, tmp_path)
    pool, x_BNW = own.attn_pool, own.forward_features(normalised(shown))
    q = pool.q(pool.latent).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    k = pool.kv(x_BNW).chunk(2, dim=-1)[0].unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    scores = pool.q_norm(q) @ pool.k_norm(k).mT * q.shape[-1] ** -0.5
    expected = scores.softmax(dim=-1)[:, :, 0, own.num_prefix_tokens :].mean(dim=1)
    torch.testing.assert_close(given(shown)[1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prior_is_chosen_by_what_the_model_attends_with(family: str, tmp_path: Path) -> None:
    name = write_timm(tmp_path, family)
    if family in AVERAGING_ALONE:
        with pytest.raises(ConfigError, match="choose --prior rollout or --prior uniform"):
            visible_identity(TeacherSpec(name=name))
        return
    chosen = visible_identity(TeacherSpec(name=name))["teacher"]["prior"]
    assert chosen == PRIORS.get(family, "cls")


@pytest.mark.parametrize("family", ["dinov3", "siglip2", "mae", "eva02"])
@torch.no_grad()
def test_the_mean_of_layers_is_that_of_the_models_own(family: str, tmp_path: Path) -> None:
    given, own, shown = teacher(family, tmp_path, layers=2)
    found = own.forward_intermediates(
        normalised(shown), indices=2, norm=True, output_fmt="NLC", intermediates_only=True
    )
    expected = torch.stack([own.fc_norm(layer_BLW) for layer_BLW in found]).mean(dim=0)
    torch.testing.assert_close(given(shown)[0][:, 1:], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "grid"),
    [
        ("dinov2-registers", 6),
        ("dinov3", 3),
        ("pe-core", 6),
        ("eva02", 3),
        ("siglip2", 6),
        ("mae", 3),
        ("supervised", 6),
        ("dynamic", 6),
    ],
)
def test_another_grid_is_timms_own_of_that_size(family: str, grid: int, tmp_path: Path) -> None:
    given, own, _ = teacher(family, tmp_path, grid=grid)
    stride = own.feature_info[-1]["reduction"]
    own.set_input_size((grid * stride, grid * stride))
    shown = pixels(grid * stride)
    assert (given.grid, given.image_size) == ((grid, grid), grid * stride)
    expected = own.fc_norm(own.forward_features(normalised(shown)))[:, own.num_prefix_tokens :]
    torch.testing.assert_close(given(shown)[0][:, 1:], expected, atol=1e-5, rtol=0)


def test_what_is_known_without_weights_is_what_the_weights_then_say(tmp_path: Path) -> None:
    name = write_timm(tmp_path, "dinov3")
    known, given = visible_identity(TeacherSpec(name=name)), Teacher.load(TeacherSpec(name=name))
    identity = given.identity()
    assert identity.pop("weights_sha256")
    assert known["teacher"] == identity
    assert given.preprocessing() == known["preprocessing"]
    assert (known["preprocessing"]["mean"], known["preprocessing"]["std"]) == (
        list(MEAN),
        list(STD),
    )
    assert (identity["name"], identity["license"]) == ("timm:local-dir", LICENCE)
    assert known["preprocessing"]["size"] == 64


def test_a_licence_that_is_not_stated_is_not_in_the_identity(tmp_path: Path) -> None:
    name = write_timm(tmp_path, "mae", license=None)
    assert "license" not in visible_identity(TeacherSpec(name=name))["teacher"]


@pytest.mark.parametrize(
    ("name", "size", "tag", "licence"),
    [
        ("vit_base_patch14_dinov2", 518, "lvd142m", "apache-2.0"),
        ("vit_base_patch16_224.mae", 224, "mae", "cc-by-nc-4.0"),
        ("vit_small_patch16_dinov3.lvd1689m", 256, "lvd1689m", "dinov3-license"),
    ],
)
def test_a_name_of_timm_tells_pixels_tag_and_licence(
    name: str, size: int, tag: str, licence: str
) -> None:
    known = visible_identity(TeacherSpec(name=f"timm:{name}"))
    assert known["preprocessing"]["size"] == size
    assert known["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert known["teacher"]["name"] == f"timm:{name.partition('.')[0]}"
    assert (known["teacher"]["pretrained"], known["teacher"]["license"]) == (tag, licence)


@pytest.fixture
def _tiny_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have timm build tiny models of its own names."""
    create: Any = timm.create_model
    monkeypatch.setattr(timm, "create_model", functools.partial(create, **TINY, img_size=64))


@pytest.mark.usefixtures("_tiny_by_name")
def test_a_file_holds_the_weights_of_a_name(tmp_path: Path) -> None:
    model = tiny_model("mae")
    state = model.state_dict() | {"mask_token": torch.zeros(1, 1, 32), "fc.weight": torch.ones(2)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    spec = TeacherSpec(name="timm:vit_base_patch16_224.mae", pretrained=str(tmp_path / "mae.pth"))
    given = Teacher.load(spec)
    assert given.identity()["pretrained"] == "file"
    assert given.mean == [0.485, 0.456, 0.406]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (given.mean, given.std))
    expected = model.forward_features((pixels(64) / 255 - mean) / std)
    torch.testing.assert_close(given(pixels(64))[0], expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_tiny_by_name")
def test_pixels_are_not_guessed(tmp_path: Path) -> None:
    """timm's weights of this name were trained with several means and standard deviations."""
    file = tmp_path / "w.safetensors"
    save_file(tiny_model("mae").state_dict(), file)
    spec = TeacherSpec(name="timm:vit_base_patch16_224", pretrained=str(file))
    with pytest.raises(ConfigError, match=r"without mean and std of its pixels .* --teacher-norm"):
        Teacher.load(spec)
    assert Teacher.load(dataclasses.replace(spec, norm="0.5/0.25")).std == [0.25] * 3


def test_a_folder_without_statistics_takes_them_by_option_alone(tmp_path: Path) -> None:
    name = write_timm(tmp_path, "mae", mean=None)
    with pytest.raises(ConfigError, match="without mean and std of its pixels"):
        visible_identity(TeacherSpec(name=name))
    known = visible_identity(TeacherSpec(name=name, norm="imagenet"))
    assert known["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.ones(32, dtype=torch.int8), "holds 'norm.weight' quantised"),
        (torch.full((32,), torch.nan), "weights that are not finite, the first in 'norm.weight'"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(
    value: torch.Tensor, said: str, tmp_path: Path
) -> None:
    name = write_timm(tmp_path, "dinov2")
    path = tmp_path / "model.safetensors"
    save_file(load_file(path) | {"norm.weight": value}, path)
    with pytest.raises(ConfigError, match=said):
        Teacher.load(TeacherSpec(name=name))


def test_quantised_weights_inside_of_another_dictionary_are_refused(tmp_path: Path) -> None:
    name = write_timm(tmp_path, "dinov2")
    path = tmp_path / "model.safetensors"
    state = load_file(path) | {"norm.weight": torch.ones(32, dtype=torch.int8)}
    path.unlink()
    torch.save({"model": state}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"holds 'norm.weight' quantised"):
        Teacher.load(TeacherSpec(name=name))


def test_quantised_weights_whose_names_timm_translates_are_refused(tmp_path: Path) -> None:
    """open_clip's checkpoints call timm's weights so."""
    name = write_timm(tmp_path, "mae")
    path, file = tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"
    state = {f"visual.trunk.{key}": tensor for key, tensor in load_file(path).items()}
    path.unlink()
    torch.save({"model": state}, file)
    Teacher.load(TeacherSpec(name=name))
    last = "visual.trunk.norm.weight"
    torch.save({"model": state | {last: state[last].char()}}, file)
    with pytest.raises(ConfigError, match=f"holds '{last}' quantised"):
        Teacher.load(TeacherSpec(name=name))


def test_of_several_files_the_weights_are_those_that_timm_takes(tmp_path: Path) -> None:
    name = write_timm(tmp_path, "dinov2")
    expected = Teacher.load(TeacherSpec(name=name)).weights_sha256
    other = {key: tensor + 1 for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(other, tmp_path / "open_clip_model.safetensors")
    assert Teacher.load(TeacherSpec(name=name)).weights_sha256 == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("mean", "abc"), ("mean", 0.5), ("std", [None] * 3), ("interpolation", ["bicubic"]),
     ("license", ["mit"])],
)  # fmt: skip
def test_a_configuration_of_wrong_types_is_refused(
    field: str, value: object, tmp_path: Path
) -> None:
    name = write_timm(tmp_path, "dinov2")
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    document["pretrained_cfg"][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="whose pretrained_cfg cannot be used"):
        Teacher.load(TeacherSpec(name=name))


@pytest.mark.parametrize("family", ["dinov3", "eva02", "pe-core", "qk-norm"])
def test_half_precision_is_near(family: str, tmp_path: Path) -> None:
    exact, _, shown = teacher(family, tmp_path)
    rounded = Teacher.load(dataclasses.replace(exact.spec, precision="bf16"))
    (targets, prior), (expected, expected_prior) = rounded(shown), exact(shown)
    assert float(torch.cosine_similarity(targets, expected, dim=-1).mean()) > 0.999
    assert float((prior - expected_prior).abs().max()) < 0.01


def test_a_repository_of_the_hub_is_timms_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands for the hub, which a test must not ask."""
    local = write_timm(tmp_path, "dinov3")
    plain: Any = timm.create_model

    def create(name: str, **given: Any) -> Any:
        if name == "hf-hub:somebody/model":
            assert given["pretrained"]
            name = local.removeprefix("timm:")
        return plain(name, **given)

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(
        open_clip.pretrained, "download_pretrained_from_hf", lambda _, filename: tmp_path / filename
    )
    given = Teacher.load(TeacherSpec(name="timm:hf-hub:somebody/model"))
    expected = Teacher.load(TeacherSpec(name=local))
    torch.testing.assert_close(given(pixels(64)), expected(pixels(64)))
    identity = given.identity()
    assert (identity["name"], identity["license"]) == ("timm:hf-hub:somebody/model", LICENCE)
    assert {**identity, "name": "timm:local-dir"} == expected.identity()


@pytest.mark.parametrize("change", ["lacks", "has", "differs"])
def test_weights_of_another_model_are_refused(change: str, tmp_path: Path) -> None:
    name = write_timm(tmp_path, "dinov2-registers")
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    if change == "lacks":
        del state["reg_token"]
    elif change == "has":
        state["blocks.7.norm1.weight"] = torch.ones(32)
    else:
        state["norm.weight"] = torch.ones(31)
    save_file(state, path)
    with pytest.raises(ConfigError, match=r"model.safetensors does not fit --teacher 'timm:local-"):
        Teacher.load(TeacherSpec(name=name))


def test_positions_of_another_size_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_timm(tmp_path, "mae")
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    state["pos_embed"] = torch.cat([state["pos_embed"], torch.zeros(1, 9, 32)], dim=1)
    save_file(state, path)
    Teacher.load(TeacherSpec(name=name))
    assert "has positions for 5x5 patches, but its model is of 4x4" in caplog.text


def test_positions_resampled_from_a_file_are_not_hashed(tmp_path: Path) -> None:
    """Their last bits differ between CPUs."""
    name = write_timm(tmp_path, "mae")
    path, found = tmp_path / "model.safetensors", []
    state = load_file(path)
    for offset in (0.0, 1.0):
        new = torch.full((1, 9, 32), offset)
        save_file(state | {"pos_embed": torch.cat([state["pos_embed"], new], dim=1)}, path)
        found.append(Teacher.load(TeacherSpec(name=name)).weights_sha256)
    assert found[0] == found[1]


def test_an_input_that_is_no_multiple_of_its_patch_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_timm(tmp_path, "dinov2")
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    document["model_args"]["img_size"] = 60
    path.write_text(json.dumps(document))
    shape = describe_teacher(TeacherSpec(name=name))
    assert (shape.image_size, shape.grid) == (56, (4, 4))
    assert "takes 60 pixels, no multiple of its patches of 14" in caplog.text


def test_the_interpolation_is_that_of_the_configuration(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_timm(tmp_path / "a", "mae", interpolation="bilinear")
    spec = TeacherSpec(name=name)
    known, given = visible_identity(spec), Teacher.load(spec)
    assert known["preprocessing"]["pixels"] == "pillow-rgb, bilinear antialiased, uint8"
    assert given.preprocessing() == known["preprocessing"]
    assert not caplog.records
    name = write_timm(tmp_path / "b", "mae", interpolation="lanczos")
    assert Teacher.load(TeacherSpec(name=name)).interpolation == "bicubic"
    assert "takes images resized by lanczos interpolation, which is not known" in caplog.text


def test_a_file_of_tags_with_several_interpolations_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stated: Any = timm.get_pretrained_cfg

    def entry(name: str) -> Any:
        changes = {"interpolation": "bilinear"} if "fb_in1k" in name else {}
        return dataclasses.replace(stated(name), **changes)

    monkeypatch.setattr(timm, "get_pretrained_cfg", entry)
    (tmp_path / "w.pth").touch()
    model, file = "timm:deit3_base_patch16_224", str(tmp_path / "w.pth")
    known = visible_identity(TeacherSpec(name=f"{model}.fb_in1k", pretrained=file))
    assert known["preprocessing"]["pixels"] == "pillow-rgb, bilinear antialiased, uint8"
    assert not caplog.records
    known = visible_identity(TeacherSpec(name=model, pretrained=file))
    assert "bilinear" not in known["preprocessing"]["pixels"]
    assert "take images resized by bicubic or bilinear" in caplog.text
    assert f"name the weights as --teacher {model}.TAG" in caplog.text


@pytest.mark.parametrize(
    ("name", "pretrained", "said"),
    [
        ("vit_nobody", None, "is no model of timm"),
        ("vit_base_patch16_224.nobody", None, "has a tag that timm does not know; choose .*mae"),
        ("vit_base_patch16_224", "mae", "is no file; .* --teacher timm:vit_base_patch16_224.TAG"),
        ("vit_base_patch16_xp_224", None, "is a model of which timm has no weights"),
        ("local-dir:/nowhere", None, "has no readable configuration"),
        ("naflexvit_base_patch16_siglip", None, "choose another"),
    ],
)
def test_what_timm_cannot_give_is_told_in_a_sentence(
    name: str, pretrained: str | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        visible_identity(TeacherSpec(name=f"timm:{name}", pretrained=pretrained))


def test_without_network_a_name_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, **given: Any) -> Any:
        if given["pretrained"]:
            raise OSError("Cannot reach the hub")
        return plain(name, **given, **TINY)

    plain: Any = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ConfigError, match=r"Cannot reach the hub.*timm:local-dir:FOLDER"):
        Teacher.load(TeacherSpec(name="timm:vit_base_patch16_224.mae"))
