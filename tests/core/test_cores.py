"""Cores that a process may use, and the threads that it computes with."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from threadpoolctl import threadpool_info

from milan_pipeline.core.cores import computing, own_cores, quota_cores, text_on_load
from milan_pipeline.errors import ConfigError


def test_processes_of_a_machine_share_the_cores_that_the_job_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(24)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (own_cores(), own_cores(5), own_cores(30)) == (24, 4, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # torchrun tells
    assert own_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert own_cores() == 2


@pytest.mark.parametrize(
    ("own", "quotas", "cores"),
    [
        ("0::/\n", {"": "200000 100000"}, 2),  # a container
        ("0::/job/step\n", {"job/step": "max 100000", "job": "150000 100000"}, 1.5),
        ("0::/job\n", {"job": "400000 100000", "job/other": "100000 100000"}, 4),
        ("0::/job\n", {}, float("inf")),
        ("1:cpu:/job\n", {"job": "100000 100000"}, float("inf")),  # version 1
    ],
)
def test_the_least_quota_of_the_groups_above_counts(
    tmp_path: Path, own: str, quotas: dict[str, str], cores: float
) -> None:
    (tmp_path / "own").write_text(own)
    for group, text in quotas.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "cpu.max").write_text(f"{text}\n")
    assert quota_cores(tmp_path / "own", tmp_path / "groups") == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cores(tmp_path / "none", tmp_path) == float("inf")


def test_torch_and_blas_have_the_threads_that_are_asked_for_inside_the_block() -> None:
    for asked in (1, 2):
        with computing(SimpleNamespace(threads=asked)):
            assert torch.get_num_threads() == asked
            pools = [pool["num_threads"] for pool in threadpool_info()]
            assert set(pools) == {asked}
        assert torch.get_num_threads() == 1


def test_auto_is_what_torch_chose_and_at_most_the_cores_of_the_process() -> None:
    def seen(**options: object) -> int:
        with computing(SimpleNamespace(threads="auto", **options)):
            return torch.get_num_threads()

    assert seen() == 1  # as the tests' own
    with computing(SimpleNamespace(threads=1000)):
        assert (seen(), seen(processes=2)) == (own_cores(), own_cores(2))


def test_more_threads_than_cores_of_any_machine_are_refused() -> None:
    with (
        pytest.raises(
            ConfigError, match=r"--threads 100000 is more than the 1024 .*; give at most"
        ),
        computing(SimpleNamespace(threads=100_000)),
    ):
        pass


def test_options_without_threads_leave_them_as_they_are() -> None:
    with computing(SimpleNamespace()):
        assert torch.get_num_threads() == 1


def test_a_busy_machine_is_told_of_with_what_helps() -> None:
    assert text_on_load(2.0, 2) is None
    said = text_on_load(6.25, 2)
    assert said is not None
    assert "2 cores (load 6.2)" in said
    assert "--threads 1" in said
