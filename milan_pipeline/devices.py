"""Which device and which types to compute with."""

import torch

from milan_pipeline.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Return the named device; "auto" takes the first accelerator that is there, else the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"--device {name!r} cannot be used ({reason}); try cpu") from error
    return device
