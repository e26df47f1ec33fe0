"""Backbones of every kind load as they were saved, at any size, and can be made again."""

import json
from typing import Any

import open_clip
import pytest
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from milan_pipeline.encoders.load import load_backbone, load_encoder
from milan_pipeline.errors import ConfigError, DataError, MismatchError, MissingDataError
from milan_pipeline.models.vit import build_encoder
from tests.support.clip import embedding, folder_of, pixels

SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3}
TINY: dict[str, Any] = {"model_name": "vit_tiny_patch16_224", "num_heads": 2, **SIZES}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6674980\n"


def saved(folder, **more):
    """Save a tiny ViT as training does; return the model."""
    torch.manual_seed(0)
    arguments = {"num_classes": 0} | TINY | more
    model = timm.create_model(**arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that no norm or bias is at its start
            parameter.add_(torch.randn_like(parameter) * 0.02)
    safetensors.torch.save_file(model.state_dict(), folder / "encoder.safetensors")
    document = {"timm": arguments, "mean": MEAN, "std": STD}
    (folder / "encoder.json").write_text(json.dumps(document))
    return model


def changed(data, change):
    """Change all tensors of a .safetensors."""
    tensors = safetensors.torch.load(data)
    return safetensors.torch.save({name: change(tensor) for name, tensor in tensors.items()})


def tokens(model, size=32):
    images_BCHW = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval().forward_features(images_BCHW)


def equal(one, other):
    """Tell whether two models have the same weights under the same names."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("timm/vit_tiny_patch16_224.x", "--encoder timm:vit_tiny_patch16_224.x$"),
        ("hf-hub:timm/vit_tiny_patch16_224", "--encoder timm:vit_tiny_patch16_224$"),
        ("hf-hub:some/clip", "--encoder open_clip:hf-hub:some/clip$"),
        ("some/model", "some/model does not exist; check the path, or give a published model as"),
    ],
)
def test_names_of_a_hub_are_told_how_they_are_given(spec, said):
    with pytest.raises(MissingDataError, match=said):
        load_backbone(spec)


@pytest.mark.parametrize("inside", ["encoder.json", "checkpoints", "log.jsonl", "tensorboard/x"])
def test_what_lies_in_a_run_is_told_to_be_no_run(tmp_path, inside):
    run = tmp_path / "run"
    run.mkdir()
    saved(run)
    if not inside.startswith(("encoder", "checkpoints")):
        (run / inside).parent.mkdir(exist_ok=True)
        (run / inside).touch()
    with pytest.raises(MissingDataError, match=f"in the run {run}; give --encoder {run}$"):
        load_backbone(str(run / inside))
    (run / "encoder.json").unlink()
    for ending in ("safetensors", "json"):
        (run / "encoder.safetensors").with_name(f"best.{ending}").touch()
    (run / "encoder.safetensors").unlink()
    if inside != "encoder.json":
        with pytest.raises(MissingDataError, match=f"give --encoder {run}/best.safetensors$"):
            load_backbone(str(run / inside))


@pytest.mark.parametrize("file", ["", "/encoder.safetensors"])
def test_a_runs_encoder_comes_back(tmp_path, file):
    model = saved(tmp_path)
    backbone = load_backbone(f"{tmp_path}{file}")
    assert backbone.name == f"{tmp_path}{file}"
    assert (backbone.mean, backbone.std) == (MEAN, STD)
    assert equal(backbone.model, model)
    assert backbone.model.training
    assert all(parameter.requires_grad for parameter in backbone.model.parameters())
    assert torch.equal(tokens(backbone.model), tokens(model))


def test_a_classifiers_head_is_left_out(tmp_path):
    model = saved(tmp_path, num_classes=5, global_pool="avg", drop_path_rate=0.2)
    backbone = load_backbone(str(tmp_path / "encoder.safetensors"))
    torch.testing.assert_close(
        tokens(backbone.model), model.fc_norm(tokens(model)).detach(), rtol=0, atol=1e-6
    )
    assert backbone.arguments["num_classes"] == 0
    assert "drop_path_rate" not in backbone.arguments
    drawn = load_backbone(str(tmp_path), random_init=True)
    assert drawn.model.state_dict().keys() == backbone.model.state_dict().keys()


def test_weights_that_do_not_fit_are_refused(tmp_path):
    saved(tmp_path)
    document = json.loads((tmp_path / "encoder.json").read_text())
    document["timm"]["depth"] = 2
    (tmp_path / "encoder.json").write_text(json.dumps(document))
    with pytest.raises(MismatchError, match="do not fit"):
        load_backbone(str(tmp_path))
    document["timm"]["depth"] = "deep"
    (tmp_path / "encoder.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="describes no encoder"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"mean": [0.5]}, DataError),
        ({"timm": {}}, DataError),
        ({"timm": {**TINY, "model_name": "hf-hub:someone/something"}}, ConfigError),
        ({"timm": {**TINY, "colour": "red"}}, DataError),
        ({"timm": {**TINY, "patch_size": 0}}, DataError),
        ({"timm": {"model_name": "resnet18"}}, ConfigError),
        ({"timm": {**TINY, "img_size": [32, 64]}}, (ConfigError, MismatchError)),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path, change, error):
    saved(tmp_path)
    document = json.loads((tmp_path / "encoder.json").read_text()) | change
    (tmp_path / "encoder.json").write_text(json.dumps(document))
    with pytest.raises(error):
        load_encoder(str(tmp_path))


def test_a_run_that_is_not_done_is_refused(tmp_path):
    model = saved(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"state": "running"}))
    with pytest.raises(MismatchError, match="'running'; finish it or --allow-unfinished"):
        load_backbone(str(tmp_path))
    assert equal(load_backbone(str(tmp_path), allow_unfinished=True).model, model)


def test_the_same_size_changes_nothing(tmp_path):
    model = saved(tmp_path)
    backbone = load_backbone(str(tmp_path), image_size=32)
    assert equal(backbone.model, model)
    assert backbone.arguments == load_backbone(str(tmp_path)).arguments


def enlarged(table, size):
    """Positions of a 4 x 4 grid and CLS for another grid, as officially interpolated."""
    cls, grid = table.detach()[:, :1], table.detach()[:, 1:].reshape(1, 4, 4, -1)
    grid = F.interpolate(grid.permute(0, 3, 1, 2), size, mode="bicubic", align_corners=False)
    return torch.cat([cls, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def test_positions_are_resampled_for_another_size(tmp_path):
    model = saved(tmp_path)
    backbone = load_backbone(str(tmp_path), image_size=64)
    expected = enlarged(model.pos_embed, (8, 8))
    assert torch.equal(backbone.model.get_parameter("pos_embed"), expected)
    assert tokens(backbone.model, 64).shape == (2, 65, 32)
    again = timm.create_model(**json.loads(json.dumps(backbone.arguments)))
    again.load_state_dict(backbone.model.state_dict(), strict=True)
    assert torch.equal(tokens(again, 64), tokens(backbone.model, 64))
    with pytest.raises(ConfigError, match="choose a multiple of 8"):
        load_backbone(str(tmp_path), image_size=60)


@pytest.mark.parametrize("name", ["test_vit", "timm:test_vit2"])
def test_drop_path_grows_with_depth(name):
    backbone = load_backbone(name, drop_path=0.25)
    blocks: Any = backbone.model.get_submodule("blocks")
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.25 * i / (len(blocks) - 1) for i in range(len(blocks))])
    assert backbone.arguments["drop_path_rate"] == 0.25


def test_a_runs_random_weights_are_those_of_pretraining(tmp_path):
    saved(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    before = torch.random.get_rng_state()
    backbone = load_backbone(str(tmp_path), random_init=True, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(3)
    sizes = {"image_size": 32, "patch_size": 8, "width": 32, "depth": 3, "heads": 2}
    assert equal(backbone.model, build_encoder("vit_tiny_patch16_224", **sizes))
    assert all(parameter.requires_grad for parameter in backbone.model.parameters())


@pytest.mark.parametrize("kind", ["timm", "open_clip"])
def test_random_weights_depend_on_their_seed_alone(kind, tmp_path):
    spec = "timm:test_vit" if kind == "timm" else f"open_clip:{folder_of('native', tmp_path)}"
    models = []
    for seed, state in ((1, 5), (1, 6), (2, 6)):
        torch.manual_seed(state)
        models.append(load_backbone(spec, random_init=True, seed=seed).model)
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])


def test_a_clips_tower_is_trained_without_its_projection(tmp_path):
    spec = f"open_clip:{folder_of('native', tmp_path)}"
    backbone = load_backbone(spec, image_size=64, drop_path=0.1)
    assert tokens(backbone.model, 64).shape == (2, 65, 32)
    assert (backbone.mean, backbone.std) == ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])


def test_a_frozen_clip_gives_its_projected_embedding(tmp_path):
    name = folder_of("native", tmp_path)
    encoder = load_encoder(f"open_clip:{name}")
    expected = embedding(open_clip.create_model(name).visual, pixels())
    torch.testing.assert_close(encoder.features(pixels()), expected, rtol=1e-4, atol=1e-5)
    assert encoder.features(pixels(), pool="both").shape == (3, 48)
    with pytest.raises(ConfigError, match="--random-init needs a student"):
        load_encoder(f"open_clip:{name}", random_init=True)


def test_pixels_have_nothing_to_train():
    with pytest.raises(ConfigError, match="no weights to train"):
        load_backbone("pixels:32")


@pytest.mark.parametrize("spec", ["pixels:x", "pixels:0", "open_clip:No-Such-Model/openai"])
@pytest.mark.parametrize("random_init", [False, True])
def test_specs_that_name_nothing(spec, random_init):
    with pytest.raises(ConfigError):
        load_encoder(spec, random_init=random_init)


@pytest.mark.parametrize("pool", ["cls", "mean", "both"])
def test_a_frozen_encoder_is_the_same_backbone(pool):
    images_BCHW = pixels(160)
    backbone = load_backbone("test_vit", seed=4)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
    with torch.no_grad():
        model: Any = backbone.model.eval()
        tokens_BNE = model.forward_features((images_BCHW / 255 - mean) / std)
    parts = {"cls": tokens_BNE[:, 0], "mean": tokens_BNE[:, 1:].mean(dim=1)}
    expected = torch.cat(list(parts.values()), dim=1) if pool == "both" else parts[pool]
    found = load_encoder("test_vit", seed=4).features(images_BCHW, pool=pool)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_the_same_up_to_its_rounding():
    exact, rounded = (
        load_encoder("test_vit", seed=4, precision=precision).features(pixels(160))
        for precision in ("fp32", "bf16")
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)


def test_an_encoder_without_a_class_token_gives_the_mean_alone():
    encoder = load_encoder("test_vit2")
    assert encoder.features(pixels(160), pool="mean").shape == (3, 64)
    with pytest.raises(ConfigError, match="no CLS token; give --pool mean"):
        encoder.features(pixels(160), pool="cls")


def test_views_are_square_and_so_must_be_what_takes_them(tmp_path):
    saved(tmp_path, img_size=[32, 48])
    with pytest.raises(ConfigError, match=r"takes 32x48 pixels.*give --image-size"):
        _ = load_backbone(str(tmp_path)).image_size
    assert load_backbone(str(tmp_path), image_size=32).image_size == 32


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("encoder.safetensors", lambda _: POINTER, "is a Git LFS pointer"),
        ("encoder.safetensors", lambda _: b"", "is empty; copy or download it again"),
        ("encoder.safetensors", lambda data: data[:3000], r"is damaged .*; export it again"),
        ("encoder.safetensors", lambda data: changed(data, lambda w: w * torch.nan), "not finite"),
        (
            "encoder.safetensors",
            lambda data: changed(data, lambda w: w.to(torch.int8)),
            "torch.int8",
        ),
        ("encoder.json", lambda _: POINTER, "is a Git LFS pointer"),
        ("encoder.json", lambda _: b"{", "describes no encoder"),
        ("encoder.json", lambda data: data.replace(b'"std"', b'"std": [0, 1, 1], "_"'), "std"),
        ("encoder.json", lambda data: data.replace(b'"mean"', b'"mean": [123, 0, 0], "_"'), "mean"),
    ],
)
def test_files_that_are_something_else_are_told_apart(file, change, said, tmp_path):
    saved(tmp_path)
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        load_backbone(str(tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("open_clip:ViT-B-16", "does not name a CLIP and its weights; write open_clip:MODEL/TAG"),
        ("open_clip:/openai", "does not name a CLIP and its weights"),
        ("open_clip:ViT-B-16/opnai", "neither a file nor a tag of --encoder 'open_clip:ViT-B-16"),
        (
            "open_clip:local-dir:/nowhere",
            "--encoder 'open_clip:local-dir:/nowhere' has no readable",
        ),
    ],
)
def test_errors_of_a_clip_name_the_encoder(spec, said):
    for load in (load_encoder, load_backbone):
        with pytest.raises(ConfigError, match=said) as caught:
            load(spec)
        assert "--teacher" not in str(caught.value)
