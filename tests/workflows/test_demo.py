"""The demo as `make demo` runs it, from its first command to its figures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MORE_THAN_RANDOM = 60
"""Points of linear accuracy."""


@pytest.mark.slow
def test_demo_reaches_its_figures(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    environment.pop("OMP_NUM_THREADS", None)  # as `make demo`, with all cores
    command = ["sh", "workflows/demo/run.sh", str(tmp_path / "demo")]
    first = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    results = json.loads((tmp_path / "demo/results.json").read_text())
    random, student, teacher = (
        results[name]["linear"] for name in ("random", "student", "teacher")
    )
    assert teacher >= 90
    assert student >= random + MORE_THAN_RANDOM
    assert student >= 0.8 * teacher
    assert (tmp_path / "demo/demo.png").stat().st_size > 10_000
    (look,) = re.findall(r"^   (milan-pipeline inspect .*\n.*)$", first.stdout, re.MULTILINE)
    subprocess.run(["sh", "-c", look], cwd=ROOT, env=environment, check=True)
    assert (tmp_path / "demo/run.html").stat().st_size > 10_000
    again = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    # scenes, two image packs, extraction, target pack, training, three probes
    assert again.stdout.count("nothing to do") == 9
