"""`benchmarks.gpu`: goals are told by figures, and all of it runs without a GPU."""

import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu.goals import CODECS, GOALS, MET, NOT_MET, NOT_RUN, Goal
from benchmarks.gpu.running import Figures, Findings, run_part
from benchmarks.gpu.setting import Setting
from tests.support.processes import GIVE_UP

ROOT = Path(__file__).parents[2]
WAIT = Goal(name="wait", figures=(("a",),), wanted=0.03, at_most=True)
EITHER = Goal(name="either", figures=(("a", "b"), ("c",)), wanted=2)


@pytest.mark.parametrize(
    ("goal", "figures", "state"),
    [
        (WAIT, {"a": 0.03}, MET),
        (WAIT, {"a": 0.04}, NOT_MET),
        (WAIT, {}, NOT_RUN),
        (EITHER, {"a": 2.0, "b": 1.0}, NOT_MET),  # the worst of those that belong together
        (EITHER, {"a": 2.0, "b": 2.0}, MET),
        (EITHER, {"a": 2.0}, NOT_RUN),
        (EITHER, {"a": 1.0, "b": 1.0, "c": 3.0}, MET),  # the best of what is good enough alone
    ],
)
def test_a_goal_is_met_by_its_figures(goal: Goal, figures: dict[str, float], state: str) -> None:
    assert goal.state(figures, on_gpu=True) == state
    assert goal.state(figures, on_gpu=False) == NOT_RUN


def die(setting: Setting, known: Figures, found: Findings) -> None:
    """Be a part that says what it was told, and is killed then."""
    with found.going_on("a figure"):
        raise ValueError("no such kernel")
    found.figure("figure", known["known"] + 1)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_what_a_killed_part_has_found_is_kept() -> None:
    setting = Setting(device_name="cpu", tiny=True)
    outcome = run_part("die", die, setting, {"known": 1.0}, seconds=GIVE_UP)
    assert (outcome.state, outcome.figures) == ("failed", {"figure": 2.0})
    assert outcome.problems == [
        "a figure: ValueError: no such kernel",
        f"its process ended with {-signal.SIGKILL}",
    ]


MACHINE = (
    "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "safetensors", "fsspec",
)  # fmt: skip
ON_A_BARE_MACHINE = """
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.split(".")[0] in sys.argv
        return None if absent else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
import benchmarks.gpu.__main__
"""


@pytest.mark.slow
def test_it_needs_no_package_that_its_page_does_not_list() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    listed = page.partition("tests/benchmarks/test_gpu.py -->\n```text\n")[2].partition("```")[0]
    carried = {canonicalize_name(name) for name in listed.split()}
    there = required_by(MACHINE) | carried | {"milan-pipeline"}
    absent = [
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, packages))
    ]
    command = [sys.executable, "-c", ON_A_BARE_MACHINE, *absent]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def required_by(packages: Iterable[str]) -> set[str]:
    """Return the names of packages, and of all that they need."""
    found: set[str] = set()
    left = [*packages]
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            needs = map(Requirement, importlib.metadata.requires(name) or [])
            left += [
                need.name
                for need in needs
                if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    return found


@pytest.mark.slow
def test_all_of_it_runs_without_a_gpu(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--tiny", "--minutes", "30", "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads((tmp_path / "gpu.json").read_text())
    states = {name: part["state"] for name, part in found["parts"].items()}
    assert states.pop("waits") == "not run"
    assert set(states.values()) == {"ok"}
    assert set(found["goals"].values()) == {NOT_RUN}
    named = {name for goal in GOALS for names in goal.figures for name in names}
    assert named <= found["figures"].keys()
    for codec in CODECS:
        assert found["figures"][f"{codec}: share of equal codes"] == 1
    assert found["figures"]["extraction, killed and resumed: objects that differ"] == 0
    assert found["figures"]["training, killed and resumed: weights apart, relative"] == 0
