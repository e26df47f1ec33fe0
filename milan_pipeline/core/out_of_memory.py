"""Tell when the memory of a GPU or of the machine ran out, and what helps; imports no torch."""

import contextlib
from collections.abc import Iterator

from milan_pipeline.errors import ConfigError, reason_of

SIZES = ("micro_batch", "batch_size")
"""Options that say how much is computed at a time; the first that there is changes least."""
SAYINGS = ("out of memory", "can't allocate memory", "alloc_failed")
"""What torch's errors say, not all of which have a type of their own."""
UNMAPPED, FORBIDDEN = "failed to map segment", "operation not permitted"
"""What the system's loader says of a library that it cannot map. The first alone means that memory
ran out; with the second, the library's file system does not allow programs to run."""


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that memory ran out, be it a GPU's or the machine's."""
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    if isinstance(error, ImportError):
        return UNMAPPED in said and FORBIDDEN not in said
    return isinstance(error, RuntimeError) and any(saying in said for saying in SAYINGS)


@contextlib.contextmanager
def explaining(options: object) -> Iterator[None]:
    """Have the block's error name the option that helps, where memory runs out.

    Args:
        options: of the stage, by name.

    Raises:
        ConfigError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise explained(error, options) from error


def explained(error: Exception, options: object) -> ConfigError:
    """Return the error of one sentence that names the option that helps.

    Args:
        error: of which `is_out_of_memory` holds.
        options: of the stage, by name.
    """
    reason = reason_of(error)[:120]
    given = {name: getattr(options, name, None) for name in SIZES}
    sizes = {name: size for name, size in given.items() if isinstance(size, int)}
    at_once = min(sizes.values(), default=1)
    checkpoints = getattr(options, "gradient_checkpointing", None) is False  # it would help
    if at_once > 1:
        flag = f"--{next(iter(sizes)).replace('_', '-')}"
        shared = ", the same to all parts" if hasattr(options, "part") else ""
        remedy = f"give {flag} {at_once // 2} or less{shared}"
        remedy += " or --gradient-checkpointing" if checkpoints else ""
    elif checkpoints:
        remedy = "give --gradient-checkpointing, or a --device that has more memory"
    else:
        remedy = "free some, or give a --device that has more, such as cpu"
    return ConfigError(f"the memory of the device does not suffice ({reason}); {remedy}")
