"""Time a training step from stored targets against the published step with its teacher in the loop.

`python -m benchmarks.pretrain_step` trains a ViT-B/16 student at 224 px, batch 8, in alternating
rounds: our trainer, and a plain, competent implementation of the published step (`plain_step`),
each in a process of its own. Every ratio is the median over rounds of times taken in the same
round. The share of the arithmetic limit is the multiply-adds of the step over the rate of a plain
matrix product of one of its shapes, measured in the same round.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.contest import Contestant, median_ratio
from benchmarks.machine import machine_line
from benchmarks.step_contestants import serve_ours, serve_plain
from benchmarks.step_table import STEP_MULTIPLY_ADDS, table
from benchmarks.stream_data import World, make_world

Times = dict[str, list[float]]
PHOTOS = 64
TARGET_WIDTHS = {"ViT-B-16": 512, "ViT-L-14": 768}
MATMUL_SHAPE = (768, 3072)  # the encoder's first MLP layer, on a batch's visible tokens
VISIBLE_TOKENS = 50


def matmul_rate(batch: int, dtype: torch.dtype, seconds: float = 0.4) -> float:
    """Return the multiply-adds a second of a plain matrix product of the student's shape."""
    inner, outer = MATMUL_SHAPE
    left = torch.randn(batch * VISIBLE_TOKENS, inner).to(dtype)
    right = torch.randn(inner, outer).to(dtype)
    left @ right
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        left @ right
        count += 1
    return count * left.numel() * outer / (time.perf_counter() - start)


def contest(world: World, *, batch: int, rounds: int, teacher: str, size: int, bf16: bool) -> Times:
    """Take turns; return seconds by "who what", the matmul's rate and both peaks of memory."""
    plain = {"teacher": teacher, "teacher_size": size}
    shared = {"batch": batch, "bf16": bf16}
    ours = {"pairs": world.pairs, "layouts": (world.layout,)}
    times: Times = defaultdict(list)
    with ExitStack() as stack:
        ours_process = Contestant("ours", serve_ours, **ours, **shared)
        plain_process = Contestant("plain", serve_plain, world=world, **plain, **shared)
        contestants = [stack.enter_context(one) for one in (ours_process, plain_process)]
        name = f"{teacher} {'bf16' if bf16 else 'fp32'}"
        for _ in tqdm(range(rounds), desc=name, unit="rounds", disable=None):
            dtype = torch.bfloat16 if bf16 else torch.float32
            times["matmul"].append(matmul_rate(batch, dtype))
            for what in ("student", "whole"):
                for contestant in contestants:
                    times[f"{contestant.name} {what}"].append(contestant.seconds(what))
            times["teacher"].append(plain_process.seconds("teacher"))
        for contestant in contestants:
            times[f"{contestant.name} peak"].append(contestant.peak_mb())
    return times


def share(times: Times, who: str, batch: int) -> float:
    """Return the share of the matmul's rate that a student's step reaches."""
    work = [STEP_MULTIPLY_ADDS["B"] * batch / rate for rate in times["matmul"]]
    return median_ratio(work, times[f"{who} student"])


def figures(fp32: Times, large: Times, bf16: Times, batch: int) -> dict[str, float]:
    """Return the figures of the last line."""
    return {
        "student_ratio": median_ratio(fp32["plain student"], fp32["ours student"]),
        "student_ratio_bf16": median_ratio(bf16["plain student"], bf16["ours student"]),
        "whole_ratio_b16": median_ratio(fp32["plain whole"], fp32["ours whole"]),
        "whole_ratio_l14": median_ratio(large["plain whole"], large["ours whole"]),
        "whole_ratio_b16_bf16": median_ratio(bf16["plain whole"], bf16["ours whole"]),
        "arithmetic_share": share(fp32, "ours", batch),
        "arithmetic_share_bf16": share(bf16, "ours", batch),
        "plain_share": share(fp32, "plain", batch),
        "plain_share_bf16": share(bf16, "plain", batch),
        "memory_saved_mb": fp32["plain peak"][0] - fp32["ours peak"][0],
    }


def describe(name: str, times: Times, batch: int) -> None:
    """Print images a second, and the spread of the rounds."""
    rate = statistics.median(times["matmul"]) * 2 / 1e9
    print(f"\n{name}: plain matmul {rate:.0f} GFLOP/s; images/s, median (lowest, highest):")
    for what in ("ours student", "plain student", "ours whole", "plain whole", "teacher"):
        rates = sorted(batch / seconds for seconds in times[what])
        middle = statistics.median(rates)
        print(f"  {what:14} {middle:6.2f}  ({rates[0]:.2f}, {rates[-1]:.2f})")
    print(
        f"  peak memory, MB: ours {times['ours peak'][0]:.0f}, plain {times['plain peak'][0]:.0f}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the three contests, print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretrain_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args(argv)
    print(machine_line("torch", "timm", "open_clip_torch"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = make_world(Path(folder) / "b", PHOTOS, TARGET_WIDTHS["ViT-B-16"])
        wide = make_world(Path(folder) / "l", PHOTOS, TARGET_WIDTHS["ViT-L-14"])
        sizes = {"batch": options.batch, "rounds": options.rounds}
        fp32 = contest(base, **sizes, teacher="ViT-B-16", size=224, bf16=False)
        large = contest(wide, **sizes, teacher="ViT-L-14", size=196, bf16=False)
        bf16 = contest(base, **sizes, teacher="ViT-B-16", size=224, bf16=True)
    describe("ViT-B/16 student, ViT-B/16 teacher, fp32", fp32, options.batch)
    describe("ViT-B/16 student, ViT-L/14 teacher at 196 px, fp32", large, options.batch)
    describe("ViT-B/16 student, ViT-B/16 teacher, bf16", bf16, options.batch)
    print(table(fp32, large, options.batch))
    found = figures(fp32, large, bf16, options.batch)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
