"""`pretrain --residual-dtype`: what it goes with, and that a run keeps it."""

from pathlib import Path

import pytest

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.plan import require_residual
from milan_pipeline.stages.shared.training import stage_record


def options(out: Path, **changes: str) -> Pretrain:
    return Pretrain(images="images", targets=("targets",), out=str(out), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("fp32", "does not fit --precision fp32;"), ("auto", "--precision auto, which is fp32 here;")],
)
def test_it_needs_arithmetic_in_bfloat16(tmp_path: Path, asked: str, said: str) -> None:
    settled = options(tmp_path, precision="fp32", residual_dtype="bf16")
    with pytest.raises(ConfigError, match=f"{said} give --precision bf16, or leave"):
        require_residual(settled, asked=asked)
    require_residual(options(tmp_path, precision="bf16", residual_dtype="bf16"), asked="auto")
    require_residual(options(tmp_path, precision="fp32"), asked="fp32")


def test_a_run_does_not_go_on_with_another(tmp_path: Path) -> None:
    stage_record("pretrain", options(tmp_path, residual_dtype="bf16")).begin()
    with pytest.raises(MismatchError, match="residual_dtype is 'bf16' there and 'fp32' here"):
        stage_record("pretrain", options(tmp_path)).previous_state()
