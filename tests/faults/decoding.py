"""Decode doubtful images in a process of its own, with little memory and little time for each.

As a program it is that process: it reads images and writes a line of JSON for each. `Decoder`
starts it, hands it images and ends it when one takes too long.
"""

import contextlib
import io
import json
import os
import resource
import select
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_pipeline.errors import BadImageError
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb, probe_header
from milan_pipeline.images.views import ViewPolicy
from tests.faults.campaign import scaled

SECONDS = scaled(5, 20)
"""Of an image's own; a slice, which runs on machines of any speed, grants more.

A process that waits for others longer than `PATIENCE` hangs, too.
"""
PATIENCE = 120.0
MEMORY = 3 * 2**30
"""Bytes beyond what the process has when it starts: an image of the largest size takes 1.6 GB."""
READY = b"ready\n"
LIMIT = "which guards against"
"""Said where an image is refused that Pillow by itself would decode."""


class Decoder:
    """A process that decodes; what it cannot survive is said of the image that it had."""

    def __init__(self, errors: Path) -> None:
        """Start none yet.

        Args:
            errors: where what it writes to stderr goes.
        """
        self._errors = errors
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, data: bytes, *, compare: bool) -> dict[str, Any]:
        """Return what became of an image: see `judge`, or {"verdict": "died" or "hung"}."""
        process = self._started()
        assert process.stdin is not None
        began = _seconds_of(process.pid)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(struct.pack("<Q?", len(data), compare) + data)
            process.stdin.flush()
        line = self._line(began + SECONDS)
        if line.endswith(b"\n"):
            return dict(json.loads(line))
        hung = process.poll() is None and line != b""
        self.close()
        return {"verdict": "hung" if hung else "died", "reason": f"code {process.returncode}"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            with self._errors.open("ab") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.decoding"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=-1,
                )  # fmt: skip
            assert self._process.stdout is not None
            assert self._process.stdout.readline() == READY
        return self._process

    def _line(self, most_seconds: float) -> bytes:
        """Return the process's next line: none if it ended, without an end if it is too slow."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        until = time.monotonic() + PATIENCE
        while not select.select([process.stdout], [], [], 0.5)[0]:
            if time.monotonic() > until or _seconds_of(process.pid) > most_seconds:
                return b"..."
        return process.stdout.readline()


def _seconds_of(pid: int) -> float:
    """Return the processor time that a process has taken: waiting for others is not its fault."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def judge(data: bytes, *, compare: bool) -> dict[str, Any]:
    """Take an image through header, pixels and view, as stages do.

    Returns:
        "verdict": "decoded", "refused" or "error"; "reason"; "warnings" that escaped; and, if it is
        to be compared, whether it is "as" Pillow has it: "equal", "unlike", or "none" if Pillow
        refuses it, too.
    """
    with warnings.catch_warnings(record=True) as escaped:
        warnings.simplefilter("always")
        found, rgb_HWC = _decoded(data)
    found["warnings"] = [str(warning.message) for warning in escaped]
    if compare:
        found["as"] = _compared(data, rgb_HWC)
    return found


def _decoded(data: bytes) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    try:
        probe_header(data)
        rgb_HWC = decode_rgb(data)
    except BadImageError as error:
        return {"verdict": "refused", "reason": str(error)}, None
    except Exception as error:  # noqa: BLE001 - which is what must not happen
        return {"verdict": "error", "reason": repr(error)}, None
    height, width, _ = rgb_HWC.shape
    view_CSS = view_pixels(rgb_HWC, ViewPolicy(seed=0).box(height, width, "key", 0), 32)
    assert view_CSS.shape == (3, 32, 32)
    return {"verdict": "decoded", "reason": ""}, rgb_HWC


def _compared(data: bytes, ours_HWC: NDArray[np.uint8] | None) -> str:
    """Compare with what Pillow has by itself, which is strict unless it is told otherwise."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image,
        ):
            image.info.pop("transparency", None)  # as alpha is, it is dropped
            if image.mode.startswith("I"):
                grey_HW = np.asarray(image) >> 8
                theirs_HWC = np.repeat(grey_HW.astype(np.uint8)[:, :, None], 3, axis=2)
            else:
                theirs_HWC = np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - Pillow raises whatever a damaged file leads it to
        return "none"
    return "equal" if ours_HWC is not None and np.array_equal(ours_HWC, theirs_HWC) else "unlike"


def main() -> None:
    """Judge images from stdin until there are no more."""
    judge(b"", compare=True)  # what is loaded at first use, is now
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    out = sys.stdout.buffer
    out.write(READY)
    out.flush()
    while head := sys.stdin.buffer.read(9):
        length, compare = struct.unpack("<Q?", head)
        found = judge(sys.stdin.buffer.read(length), compare=compare)
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out.write(json.dumps(found).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
