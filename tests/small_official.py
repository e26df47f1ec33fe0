"""A small student's weights under official names, as the official code recorded them."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import run_cli

CASE = Path(__file__).parent / "data" / "parity" / "tiny.safetensors"
HEADS = ("--heads", 4, "--decoder-heads", 4)


def official_weights() -> dict[str, Tensor]:
    """64 px in patches of 16, width 48, 3 blocks; decoder 32 wide, 2 blocks."""
    found = load_file(CASE)
    return {k.removeprefix("state/"): v for k, v in found.items() if k.startswith("state/")}


def encoder_only(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those of the decoder."""
    return {k: v for k, v in weights.items() if "decoder" not in k and k != "mask_token"}


def import_checkpoint(checkpoint: Path, out: Path, *more: object, code: int = 0) -> Path:
    """Run the stage; return the run folder."""
    run_cli("import-checkpoint", checkpoint, "--out", out, *(more or HEADS), code=code)
    return out
