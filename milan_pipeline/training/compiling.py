"""Compile a model's blocks with torch, and explain why that is not possible."""

import contextlib
from collections.abc import Iterator

from torch import nn

from milan_pipeline.cluster.world import blocks_of
from milan_pipeline.errors import ConfigError, reason_of

FAILED = "BackendCompilerFailed"
"""The class of torch's errors, which is not imported, since the compiler would be, too."""


def compile_blocks(model: nn.Module) -> None:
    """Have torch compile the blocks when they are first called; in place, so that names stay.

    Block by block, since sharding acts between blocks, and blocks of one kind share their graph.
    """
    for block in blocks_of(model):
        block.compile()


@contextlib.contextmanager
def explained_compiler() -> Iterator[None]:
    """Name the option that needs no compiler where torch cannot compile a block.

    Raises:
        ConfigError: it cannot, most often since the machine has no C++ compiler.
    """
    try:
        yield
    except RuntimeError as error:
        if FAILED not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise ConfigError(
            f"torch cannot compile the model's blocks ({reason_of(error)[:160]}); give "
            "--no-compile, or install a C++ compiler"
        ) from error
