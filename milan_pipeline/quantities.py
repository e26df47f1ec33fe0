"""Numbers in words."""

STEPS = ("kB", "MB", "GB", "TB", "PB")


def short_bytes(size: float) -> str:
    """Return a size as people say it: "1.3 GB", by powers of 1000."""
    if size < 1000:
        return f"{size:.4g} bytes"
    step = -1
    while size >= 999.95 and step < len(STEPS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:.3g} {STEPS[step]}" if size < 999.5 else f"{size:.0f} {STEPS[step]}"


def bytes_text(size: int) -> str:
    """Return a size exactly and as people say it: "1312345678 (1.31 GB)"."""
    return f"{size}" if size < 1000 else f"{size} ({short_bytes(size)})"
