"""The demo, from its first command to its figures; `DEMO=whole` runs it as `make demo` does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WHOLE = os.environ.get("DEMO") == "whole"
"""The demo as it is takes minutes; by default, a fourth of its scenes is drawn."""
SCENES = [] if WHOLE else ["2000", "600"]
MORE_THAN_RANDOM = 60 if WHOLE else 12
"""Points of linear accuracy."""


@pytest.mark.slow
def test_demo_reaches_its_figures(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    environment.pop("OMP_NUM_THREADS", None)  # as `make demo`, with all cores
    command = ["sh", "workflows/demo/run.sh", str(tmp_path / "demo"), *SCENES]
    first = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    results = json.loads((tmp_path / "demo/results.json").read_text())
    random, student, teacher = (
        results[name]["linear"] for name in ("random", "student", "teacher")
    )
    assert teacher >= 90
    assert student >= random + MORE_THAN_RANDOM
    assert student >= (0.8 if WHOLE else 0.3) * teacher
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
