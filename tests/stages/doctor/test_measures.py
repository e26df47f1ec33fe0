"""What doctor measures, by a clock of ours."""

import http.server
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from milan_pipeline.stages.doctor.measures import (
    disk_speed,
    free_shared_bytes,
    hub_failure,
    product_rates,
)


def seconds(step: float = 1.0) -> Iterator[float]:
    """Count on with each look at the clock."""
    return itertools.count(0.0, step)


def test_a_product_is_timed_in_each_precision() -> None:
    clock = seconds(0.5)
    rates = product_rates(torch.device("cpu"), 4, lambda: next(clock))
    assert rates == dict.fromkeys(("fp32", "bf16", "fp16"), 4**3 / 0.5)


def test_a_disk_is_timed_and_left_as_it_was(tmp_path: Path) -> None:
    clock = seconds(2.0)
    found = disk_speed(str(tmp_path), 1000, lambda: next(clock))
    assert not isinstance(found, str)
    assert (found.written, found.read) == (500, 500)
    assert not list(tmp_path.iterdir())
    assert disk_speed(str(tmp_path / "none")) == "No such file or directory"


def test_shared_memory_may_not_be_there(tmp_path: Path) -> None:
    assert (free_shared_bytes(str(tmp_path)) or 0) > 0
    assert free_shared_bytes(str(tmp_path / "none")) is None


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers that nothing is there, and says so to nobody else."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write no log."""


@pytest.fixture
def server() -> Iterator[str]:
    """A server of this machine."""
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_port}"
        finally:
            found.shutdown()
            thread.join()


def test_a_hub_that_answers_anything_is_there(server: str) -> None:
    assert hub_failure(server, False) is None
    assert "HF_HUB_OFFLINE" in str(hub_failure(server, True))


def test_a_hub_that_does_not_answer() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as unused:
        port = unused.server_port
    assert "refused" in str(hub_failure(f"http://127.0.0.1:{port}", False))
    assert hub_failure("nonsense", False)
    assert "control characters" in str(hub_failure("http://a b", False))
    assert "port" in str(hub_failure("http://a:x", False))
