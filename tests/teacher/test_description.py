"""Which precision "auto" is."""

import pytest
import torch

from milan_pipeline.core.devices import has_bfloat16
from milan_pipeline.teacher.description import settle_precision
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import native, pixels, timm_tower

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False])
def bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A device that has bfloat16, or has not."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(request.param)


def test_the_device_decides_unless_targets_exist(bfloat16: bool) -> None:
    auto = TeacherSpec(name="x", precision="auto", layers=2)
    own = "bf16" if bfloat16 else "fp32"
    assert settle_precision(auto, CPU) == TeacherSpec(name="x", precision=own, layers=2)
    for existing in ("fp32", "bf16", "fp16"):
        assert settle_precision(auto, CPU, existing=existing).precision == existing


@pytest.mark.parametrize("asked", ["fp32", "bf16", "fp16"])
def test_what_is_named_is_kept(bfloat16: bool, asked: str) -> None:
    spec = TeacherSpec(name="x", precision=asked)
    assert settle_precision(spec, CPU, existing="fp32") is spec


def test_no_identity_says_auto(bfloat16: bool) -> None:
    given = Teacher(native(), TeacherSpec(name="x", precision="auto"))
    assert given.identity()["precision"] == ("bf16" if bfloat16 else "fp32")


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_by_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert has_bfloat16(torch.device("cuda")) is has


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_cpus_by_instruction(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bfloat16(CPU) is (avx512 or amx)
    assert not has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize("asked", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["native", "siglip", "eva02", "relpos", "convnext"])
def test_half_precisions_are_near(family: str, asked: str) -> None:
    def teacher(precision: str) -> Teacher:
        visual = native() if family == "native" else timm_tower(family)
        prior = "uniform" if family == "convnext" else "auto"
        return Teacher(visual, TeacherSpec(name="x", precision=precision, prior=prior))

    exact, rounded = teacher("fp32"), teacher(asked)
    size = exact.image_size
    (targets, prior), (expected, expected_prior) = rounded(pixels(size)), exact(pixels(size))
    assert targets.dtype == prior.dtype == torch.float32
    assert float(torch.cosine_similarity(targets, expected, dim=-1).mean()) > 0.999
    assert float((prior - expected_prior).abs().max()) < 0.01
    assert rounded.identity() == exact.identity() | {"precision": asked}
