"""See whether a GPU does this project's work rightly, and how fast: `python -m benchmarks.gpu`.

One command, without a network and without data but what it makes itself, in at most 7 minutes. Each
part runs in a process of its own. First parts compare the device with the CPU, have torch raise
where anything waits, and kill and resume; then parts measure, beside the device's own rates of
products and copies. It prints figures as they come, whether each goal (of one H200) is met, and one
line of JSON. It ends with 1 if a part failed; a goal that is not met is no failure.

`--device cpu --tiny` runs all that can run without a GPU, with models of a few thousand weights.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.extraction import PER_CORE as DECODED
from benchmarks.gpu.extraction import cores
from benchmarks.gpu.feeding import PER_CORE as LOADED
from benchmarks.gpu.goals import GOALS
from benchmarks.gpu.parts import PARTS, STARTING
from benchmarks.gpu.running import (
    CONTEXT,
    FAILED,
    NOT_RUN,
    PRELOADED,
    Outcome,
    run_here,
    run_part,
)
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.teachers import SIZES, best_rate
from benchmarks.machine import machine_line
from milan_pipeline.core.console import aligned

PACKAGES = ("torch", "timm", "open_clip_torch", "zarr", "numpy")
LONGEST = 150.0
"""Seconds that a part may take."""


def main(words: list[str] | None = None) -> int:
    """Run the parts, print what they find, and return 1 if one of them failed."""
    options = _options(words)
    setting = Setting(device_name=options.device, tiny=options.tiny)
    machine = f"{machine_line(*PACKAGES)}; {device_line(setting)}"
    print(machine, flush=True)
    CONTEXT.set_forkserver_preload(PRELOADED)
    outcomes = run_parts(options.only or list(PARTS), setting, seconds=60 * options.minutes)
    figures = {name: value for each in outcomes for name, value in each.figures.items()}
    figures |= cores_needed(figures)
    goals = goal_rows(figures, on_gpu=setting.on_gpu)
    print("\n" + "\n".join(aligned([("goal", "wanted", "measured", ""), *goals])))
    failed = [each.name for each in outcomes if each.state == FAILED]
    print(f"\n{len(outcomes)} parts; failed: {', '.join(failed) or 'none'}")
    document = {
        "machine": machine,
        "parts": {each.name: part_row(each) for each in outcomes},
        "figures": figures,
        "goals": {name: state for name, *_, state in goals},
    }
    line = json.dumps(document)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 1 if failed else 0


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="where models run")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the line of JSON here too")
    parser.add_argument("--minutes", type=float, default=6.5, help="after which no part begins")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    return parser.parse_args(words)


def device_line(setting: Setting) -> str:
    """Name the device and, of a GPU, how many there are."""
    if not setting.on_gpu:
        return str(setting.device)
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(setting.device)}"


def run_parts(names: list[str], setting: Setting, *, seconds: float) -> list[Outcome]:
    """Run parts one after the other, and print what each finds; stop them after so many seconds."""
    end = time.monotonic() + seconds
    outcomes: list[Outcome] = []
    known: dict[str, float] = {}
    for name in names:
        left = end - time.monotonic()
        if left <= 0:
            outcome = Outcome(name=name, state=NOT_RUN, problems=["no time was left"])
        else:
            run = run_here if name in STARTING else run_part
            outcome = run(name, PARTS[name], setting, known, seconds=min(left, LONGEST))
        known |= outcome.figures
        print(f"\n{name}: {outcome.state}, {outcome.seconds:.1f} s", flush=True)
        for figure, value in outcome.figures.items():
            print(f"  {figure:66} {value:12.5g}")
        for problem in outcome.problems:
            print(f"  ! {problem}", flush=True)
        outcomes.append(outcome)
    return outcomes


def cores_needed(figures: dict[str, float]) -> dict[str, float]:
    """Return, and print, how many cores must decode for what was measured alone."""
    student = max(
        figures.get(f"student B/16 {way}, images/s", 0.0) for way in ("compiled", "eager")
    )
    fed = [(f"teacher {size}", best_rate(figures, size), DECODED) for size in SIZES]
    needed = {}
    for what, rate, per_core in [*fed, ("student B/16", student, LOADED)]:
        if rate and per_core in figures:
            needed[f"cores that must decode for {what}"] = rate / figures[per_core]
            print(f"{what}: {rate / figures[per_core]:.1f} cores must decode; {cores()} here")
    return needed


def goal_rows(figures: dict[str, float], *, on_gpu: bool) -> list[tuple[str, str, str, str]]:
    """Return a row a goal: its name, what is wanted, what was measured, and whether it is met."""
    rows = []
    for goal in GOALS:
        found = goal.measured(figures)
        sign = "at most" if goal.at_most else "at least"
        measured = "-" if found is None or not on_gpu else f"{found:.5g}"
        state = goal.state(figures, on_gpu=on_gpu)
        rows.append((goal.name, f"{sign} {goal.wanted:g}", measured, state))
    return rows


def part_row(outcome: Outcome) -> dict[str, Any]:
    """Return what became of a part, for the line of JSON."""
    seconds = round(outcome.seconds, 1)
    return {"state": outcome.state, "seconds": seconds, "problems": outcome.problems}


if __name__ == "__main__":
    sys.exit(main())
