"""Weights that cannot be read end in a sentence that names the file and what helps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.description import describe_teacher
from milan_pipeline.teacher.load_by_name import is_resampled, load_visual
from milan_pipeline.teacher.spec import TeacherSpec
from tests.support.clip import write_tiny_clip

SAFE, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6674980\n"
Weights = dict[str, torch.Tensor]
Write = Callable[[Path, Weights], object]


def whole(path: Path, weights: Weights) -> bytes:
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)
    return path.read_bytes()


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Write:
    return lambda path, weights: whole(path, weights | {name: change(weights[name])})


def under(**document: object) -> Write:
    return lambda path, weights: torch.save(
        {key: weights if value is ... else value for key, value in document.items()}, path
    )


REFUSED: dict[str, tuple[str, Write, str]] = {
    "pointer": (SAFE, lambda path, _: path.write_bytes(POINTER), "a Git LFS pointer .*lfs pull"),
    "pointer-bin": (BIN, lambda path, _: path.write_bytes(POINTER), "is a Git LFS pointer"),
    "empty": (SAFE, lambda path, _: path.write_bytes(b""), "is empty; copy or download it again"),
    "page": (BIN, lambda path, _: path.write_text("<!DOCTYPE html>"), "is a web page"),
    "text": (BIN, lambda path, _: path.write_text("hello"), "is no file of weights, or is damaged"),
    "torn": (SAFE, lambda p, w: p.write_bytes(whole(p, w)[:9000]), "damaged .*copy or download it"),
    "torn-bin": (BIN, lambda p, w: p.write_bytes(whole(p, w)[:9000]), "is damaged or not whole"),
    "pickled": (BIN, under(best=np.float64(0.5), state_dict=...), "more than tensors, .*alone"),
    "model": (BIN, under(model=..., epoch=3), "has its weights under 'model'.*state dict alone"),
    "list": (BIN, lambda path, _: torch.save([1], path), "holds no state dict"),
    "nothing": (BIN, lambda path, _: torch.save({}, path), "holds no state dict"),
    "nan": (SAFE, changed("visual.proj", lambda w: w * torch.nan), "finite, the first in 'proj'"),
    "int8": (SAFE, changed("visual.proj", lambda w: w.to(torch.int8)), "'visual.proj' quantised"),
    "other": (
        SAFE,
        lambda path, weights: whole(path, {"fc.weight": weights["visual.proj"]}),
        'does not fit the architecture: it lacks "[a-z_.]+" and has "fc.weight"; give the',
    ),
    "wide": (SAFE, changed("visual.proj", lambda w: w[:, :8].clone()), "shape of visual.proj"),
}  # fmt: skip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_tiny_clip(tmp_path / "clip")


def replace(clip: Path, target: str, write: Write) -> Path:
    weights = load_file(clip / SAFE)
    (clip / SAFE).unlink()
    write(clip / target, weights)
    return clip / target


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_in_the_place_of_weights(case: str, clip: Path) -> None:
    target, write, said = REFUSED[case]
    path = replace(clip, target, write)
    with pytest.raises(ConfigError, match=said) as caught:
        load_visual(TeacherSpec(name=f"local-dir:{clip}"))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def scripted(path: Path, weights: Weights) -> None:
    """Save weights as OpenAI's archives have them: modules, with three sizes beside them."""
    sizes = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(1))
    root = torch.nn.Module()
    for name, tensor in (weights | sizes).items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = module.get_submodule(parent)
        module.register_buffer(last, tensor)
    torch.jit.script(root).save(str(path))


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_torchscript_archive_is_loaded_as_the_error_says(clip: Path) -> None:
    expected = load_visual(TeacherSpec(name=f"local-dir:{clip}")).state_dict()
    path = replace(clip, BIN, scripted)
    with pytest.raises(ConfigError, match="is a TorchScript archive; save its state dict") as error:
        load_visual(TeacherSpec(name=f"local-dir:{clip}"))
    python = str(error.value).split("`")[1]
    exec(python, {"torch": torch, "safetensors": safetensors})  # noqa: S102 - it is our own line
    path.unlink()
    found = load_visual(TeacherSpec(name=f"local-dir:{clip}")).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("target", "write"),
    [
        (BIN, under(state_dict=..., epoch=3)),
        (BIN, lambda path, w: torch.save({f"module.{name}": t for name, t in w.items()}, path)),
        (SAFE, lambda path, w: save_file({name: t.bfloat16() for name, t in w.items()}, path)),
        ("renamed.safetensors", whole),
    ],
)
def test_usual_forms_are_loaded(target: str, write: Write, clip: Path) -> None:
    expected = load_visual(TeacherSpec(name=f"local-dir:{clip}")).state_dict()
    replace(clip, target, write)
    for name, tensor in load_visual(TeacherSpec(name=f"local-dir:{clip}")).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=0.02, rtol=0.01)


def alone(weights: Weights) -> Weights:
    own = {name.removeprefix("visual."): t for name, t in weights.items() if "visual." in name}
    return {name: tensor.clone() for name, tensor in own.items()}


@pytest.mark.parametrize("grid", [None, 8])
@pytest.mark.parametrize(
    ("target", "write"),
    [
        (SAFE, lambda path, w: whole(path, alone(w))),
        (BIN, lambda path, w: whole(path, {f"_orig_mod.{name}": t for name, t in w.items()})),
        (
            SAFE,
            lambda path, w: whole(path, {f"visual.{n}": t for n, t in alone(w).items()}),
        ),
        (
            BIN,
            lambda path, w: whole(
                path, {f"module._orig_mod.{name}": t for name, t in alone(w).items()}
            ),
        ),
    ],
)
def test_an_image_tower_alone_or_compiled_is_loaded(
    target: str, write: Write, grid: int | None, clip: Path
) -> None:
    spec = TeacherSpec(name=f"local-dir:{clip}", grid=grid)
    expected = load_visual(spec)
    replace(clip, target, write)
    found = load_visual(spec)
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name])
    assert found.preprocess_cfg == expected.preprocess_cfg


def test_another_image_tower_alone_is_refused(clip: Path) -> None:
    path = replace(
        clip,
        SAFE,
        lambda path, w: whole(path, {f"visual.{n}": t for n, t in alone(w).items() if n != "proj"}),
    )
    with pytest.raises(ConfigError, match=f"{path} does not fit .* tower lacks 'proj'; give the"):
        load_visual(TeacherSpec(name=f"local-dir:{clip}"))


def test_a_text_tower_of_transformers_is_not_needed(clip: Path) -> None:
    expected = load_visual(TeacherSpec(name=f"local-dir:{clip}")).state_dict()
    path = clip / "open_clip_config.json"
    document = json.loads(path.read_text())
    document["model_cfg"]["text_cfg"] = {"hf_model_name": "nobody/nothing", "pooler_type": "cls"}
    path.write_text(json.dumps(document))
    found = load_visual(TeacherSpec(name=f"local-dir:{clip}")).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_folder_without_weights_or_with_several(clip: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(clip / SAFE, clip / name)
    load_visual(TeacherSpec(name=f"local-dir:{clip}"))  # one has the name that open_clip gives
    (clip / SAFE).unlink()
    with pytest.raises(ConfigError, match="several files of weights, such as a"):
        load_visual(TeacherSpec(name=f"local-dir:{clip}"))
    for name in ("a.safetensors", "b.safetensors"):
        (clip / name).unlink()
    with pytest.raises(ConfigError, match="has no weights beside its configuration"):
        load_visual(TeacherSpec(name=f"local-dir:{clip}"))


def test_positions_of_another_size_are_warned_of(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"local-dir:{clip}"
    load_visual(TeacherSpec(name=name, grid=8))
    assert not caplog.records
    path = clip / "open_clip_config.json"
    document = json.loads(path.read_text())
    document["model_cfg"]["vision_cfg"]["image_size"] = 64
    path.write_text(json.dumps(document))
    assert is_resampled(load_visual(TeacherSpec(name=name)))
    assert "has positions for 16 patches, but the image_size of" in caplog.text
    assert "asks for 64" in caplog.text


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("opnai", "neither a file nor a tag .* choose openai or"),
        ("gone.pt", "not a known tag or valid file path"),
    ],
)
def test_weights_that_are_not_there(tag: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_visual(TeacherSpec(name="ViT-B-16", pretrained=tag))


@pytest.mark.parametrize(
    ("vision", "said"),
    [
        ({"patch_size": 0}, "configuration that open_clip cannot build"),
        ({"image_size": "32"}, "configuration that open_clip cannot build"),
        ({"layers": 0}, "an image tower without tokens"),
    ],
)
def test_a_broken_configuration_is_not_the_weights_fault(
    vision: dict[str, object], said: str, clip: Path
) -> None:
    path = clip / "open_clip_config.json"
    document = json.loads(path.read_text())
    document["model_cfg"]["vision_cfg"] |= vision
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=said):
        describe_teacher(TeacherSpec(name=f"local-dir:{clip}"))


def test_a_folder_of_transformers_is_told_apart(clip: Path) -> None:
    (clip / "open_clip_config.json").unlink()
    for text, said in (
        ('{"model_type": "clip"}', "is a model of transformers: give that CLIP by"),
        ('{"stage": "pretrain"}', "give a folder that holds open_clip_config.json and weights"),
    ):
        (clip / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_visual(TeacherSpec(name=f"local-dir:{clip}"))
