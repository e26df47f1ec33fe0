"""A command line that gives the same options again; variables that say who is started with whom."""

import dataclasses
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from milan_pipeline.cluster.launch import (
    is_launched,
    launched_size,
    require_meeting_place,
    run_together,
    words_of,
)
from milan_pipeline.errors import ConfigError, MissingDataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    base_lr: float = 1.5e-4
    fsdp: bool = True
    compile: bool = False
    max_steps: int | None = None
    targets: tuple[str, ...] = ("clip=a", "dino=b")
    target_weight: tuple[str, ...] = ()


def test_every_option_is_given_but_those_without_a_value():
    assert words_of(Options()) == [
        *("--base-lr", "0.00015", "--fsdp", "--no-compile"),
        *("--targets", "clip=a", "--targets", "dino=b"),
    ]


@pytest.fixture
def set_only(monkeypatch: pytest.MonkeyPatch):
    """Sets variables where torchrun's others are not set."""

    def set_all(variables: Mapping[str, str]) -> None:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    "variables",
    [{}, {"RANK": "", "WORLD_SIZE": ""}, {"RANK": "0", "WORLD_SIZE": "1"}, {"WORLD_SIZE": "1"}],
)
def test_a_world_of_one_is_alone(set_only, variables: dict[str, str]) -> None:
    set_only(variables)
    assert launched_size() == 1
    assert not is_launched()


def test_several_are_counted(set_only) -> None:
    set_only({"RANK": "2", "WORLD_SIZE": "3"})
    assert launched_size() == 3
    assert is_launched()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"RANK": "0"}, "RANK is 0, but WORLD_SIZE is not set"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK 5 is not below WORLD_SIZE 2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0', not a number of 1 or more"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', not a number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1', not a number of 0 or more"),
        ({"RANK": "1.0", "WORLD_SIZE": "2"}, "RANK is '1.0', not a number"),
    ],
)
def test_variables_that_are_left_over_are_named(
    set_only, variables: dict[str, str], said: str
) -> None:
    set_only(variables)
    with pytest.raises(ConfigError, match=said) as raised:
        launched_size()
    assert "unset RANK and WORLD_SIZE to train in one process" in str(raised.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"MASTER_PORT": "29500"}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": "localhost"}, "MASTER_PORT is not set"),
        ({"MASTER_ADDR": "localhost", "MASTER_PORT": "abc"}, "MASTER_PORT is 'abc', not a number"),
        ({"MASTER_ADDR": "localhost", "MASTER_PORT": "99999"}, "not a number of 1 up to 65535"),
    ],
)
def test_a_place_to_meet_must_be_named(set_only, more: dict[str, str], said: str) -> None:
    set_only({"RANK": "0", "WORLD_SIZE": "2"} | more)
    with pytest.raises(ConfigError, match=said):
        require_meeting_place()


@pytest.mark.parametrize(("second", "code"), [(["--help"], 0), (["--nonsense"], 2)])
def test_processes_end_with_one_exit_code(second: list[str], code: int) -> None:
    calls: list[None] = []
    processes = [(["--help"], {}), (second, {"OMP_NUM_THREADS": "1"})]
    assert run_together("compare", processes, lambda: calls.append(None)) == code
    assert calls


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started, which sleep."""
    processes: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen

    def sleeping(_: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        processes.append(begin(["sleep", "60"], env=env))
        return processes[-1]

    monkeypatch.setattr("subprocess.Popen", sleeping)
    return processes


@pytest.mark.parametrize("error", [MissingDataError, KeyboardInterrupt])
def test_an_error_ends_all_processes(started, error: type[BaseException]) -> None:
    def meanwhile() -> None:
        raise error

    with pytest.raises(error):
        run_together("compare", [([], {}), ([], {})], meanwhile)
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 2


def test_a_signal_that_ends_processes_before_they_listen_is_a_stop(started, caplog) -> None:
    asked: list[None] = []

    def meanwhile() -> None:
        if not asked:
            asked.append(None)
            os.kill(os.getpid(), signal.SIGUSR1)

    assert run_together("compare", [([], {}), ([], {})], meanwhile) == 75
    assert [process.poll() for process in started] == [-signal.SIGUSR1] * 2
    assert not caplog.records


def test_who_stops_first_does_not_end_the_others(monkeypatch, tmp_path: Path) -> None:
    begin, codes = subprocess.Popen, iter(["exit 75", "until [ -e go ]; do sleep 0.05; done"])
    processes: list[subprocess.Popen[bytes]] = []

    def shell(_: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        processes.append(begin(["sh", "-c", next(codes)], cwd=tmp_path))
        return processes[-1]

    looks: list[None] = []

    def meanwhile() -> None:
        if processes[0].returncode == 75:
            looks.append(None)
        if len(looks) == 3:
            (tmp_path / "go").touch()

    monkeypatch.setattr("subprocess.Popen", shell)
    assert run_together("compare", [([], {}), ([], {})], meanwhile) == 75
    assert [process.returncode for process in processes] == [75, 0]


def test_processes_share_the_threads_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def refusing(_: list[str], env: dict[str, str]) -> None:
        seen.append(env["OMP_NUM_THREADS"])
        raise OSError("refused")

    monkeypatch.setattr("subprocess.Popen", refusing)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError, match="refused"):
        run_together("compare", [([], {})] * 3)
    assert seen == ["2"]
