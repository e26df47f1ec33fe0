"""The loss curves of the demo student's ways to train, compared by the benchmark itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.curves import TOLERANCES, deviation

ROOT = Path(__file__).parents[2]


def test_a_deviation_is_the_largest_one_relative_to_the_plain_curve():
    assert deviation([2.0, 1.1, 0.5], [2.0, 1.0, 0.5]) == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"zip\(\) argument 2"):
        deviation([2.0], [2.0, 1.0])


@pytest.mark.slow
def test_every_way_to_train_gives_the_plain_runs_curve():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.curves", "--scenes", "200", "--steps", "10"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == TOLERANCES.keys()
    assert all(found[name] <= TOLERANCES[name] for name in found)
    assert found["processes_2"] > 0  # it was another way
