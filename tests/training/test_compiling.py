"""Where torch cannot compile, the error names what helps."""

from typing import Any

import pytest
import torch

from milan_pipeline.errors import ConfigError
from milan_pipeline.training.compiling import explained_compiler


class Block(torch.nn.Linear):
    """A module of torch itself would not be compiled by torch 2.9."""

    def forward(self, x_BE: torch.Tensor) -> torch.Tensor:
        return super().forward(x_BE)


def test_a_machine_without_a_compiler_is_told_what_helps() -> None:
    def failing(*_: object) -> Any:
        raise OSError("no compiler here")

    torch.compiler.reset()
    block = Block(2, 2)
    block.compile(backend=failing)
    with (
        pytest.raises(ConfigError, match=r"no compiler here.*; give --no-compile"),
        explained_compiler(),
    ):
        block(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="another"), explained_compiler():
        raise RuntimeError("another")
