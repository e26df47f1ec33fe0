"""A teacher where TF32 is allowed, as in NVIDIA's containers: one identity, the same numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import pixels


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Allow what TORCH_ALLOW_TF32_CUBLAS_OVERRIDE allows."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_identity_and_targets_are_those_of_any_machine(
    tiny_clip: Path, precision: str, request: pytest.FixtureRequest
) -> None:
    spec = TeacherSpec(name=f"local-dir:{tiny_clip}", precision=precision)
    elsewhere = Teacher.load(spec)
    request.getfixturevalue("allowed")
    there = Teacher.load(spec)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert there.identity() == elsewhere.identity()
    assert there.identity()["precision"] == precision
    for ours, theirs in zip(there(pixels()), elsewhere(pixels()), strict=True):
        assert torch.equal(ours, theirs)
