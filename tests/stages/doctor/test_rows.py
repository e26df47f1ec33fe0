"""What doctor says of what it was told: ok, look or bad, and what helps."""

import pytest

from milan_pipeline.stages.doctor.rows import (
    DiskSpeed,
    Row,
    cores_row,
    disk_row,
    gpu_row,
    hub_row,
    load_row,
    no_folder_row,
    precision_row,
    shared_memory_row,
    threads_row,
)

SLOW, FAST = DiskSpeed(written=1e7, read=1e7), DiskSpeed(written=1e9, read=2e9)


@pytest.mark.parametrize(
    ("row", "state", "remedy"),
    [
        (gpu_row(["a GPU, 80 GiB"], has_driver=True), "ok", ""),
        (gpu_row([], has_driver=False), "look", "plan --measure"),
        (no_folder_row("data"), "look", "mkdir -p data"),
        (gpu_row([], has_driver=True), "bad", "nvidia-smi"),
        (precision_row({"fp32": 2e9, "bf16": 2e8, "fp16": 1e8}, "fp32"), "ok", ""),
        (precision_row({"fp32": 2e9, "bf16": 8e9, "fp16": 8e9}, "bf16"), "ok", ""),
        (precision_row({"fp32": 2e9, "bf16": 8e9, "fp16": 8e9}, "fp32"), "look", "bf16"),
        (precision_row({"fp32": 2e9, "bf16": 1e9, "fp16": 1e9}, "bf16"), "look", "fp32"),
        (precision_row({"fp32": 2e9, "bf16": 2.1e9, "fp16": 9e9}, "fp32"), "ok", ""),
        (cores_row(8, 8), "ok", ""),
        (cores_row(2, 64), "look", "--cpus-per-task"),
        (load_row(0.3, 2), "ok", ""),
        (load_row(5.0, 2), "look", "--threads 1"),
        (threads_row(2, 2, None), "ok", ""),
        (threads_row(8, 2, "8"), "ok", ""),
        (threads_row(1, 2, "1"), "look", "unset OMP_NUM_THREADS, or --threads 2"),
        (shared_memory_row(None), "ok", ""),
        (shared_memory_row(8 * 2**30), "ok", ""),
        (shared_memory_row(512 * 2**20), "look", "--shm-size"),
        (shared_memory_row(64 * 2**20), "bad", "--workers 0"),
        (disk_row("data", FAST, 10**12), "ok", ""),
        (disk_row("data", FAST, 10**8), "look", "plan --out data"),
        (disk_row("data", SLOW, 10**12), "look", "--cache"),
        (disk_row("data", "Permission denied", 10**12), "bad", "another FOLDER"),
        (hub_row(None), "ok", ""),
        (hub_row("timed out"), "look", "local-dir:"),
    ],
)
def test_rows(row: Row, state: str, remedy: str) -> None:
    assert row.state == state
    assert remedy in row.remedy
    assert bool(row.remedy) == (state != "ok")


def test_figures_are_in_the_words() -> None:
    assert (
        "bf16 0.1 times as fast"
        in precision_row({"fp32": 2e9, "bf16": 2e8, "fp16": 1e8}, "fp32").found
    )
    assert disk_row("data", FAST, 10**12).found == "data writes 1 GB/s, reads 2 GB/s, 1 TB free"
    assert "OMP_NUM_THREADS=1" in threads_row(1, 2, "1").found
