"""extract-targets with teachers of other families, and what the stages after it make of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from milan_pipeline.core.devices import has_bfloat16, pick_device
from milan_pipeline.targets.layout import read_identity
from tests.support.cli import run_cli
from tests.support.clip import folder_of, smaller
from tests.support.disturbances import before_modules
from tests.support.pretrain import log, pretrain, state
from tests.support.stores import values_of


def extract(images: Path, teacher: str, out: Path, *more: object, code: int = 0) -> None:
    run_cli(
        "extract-targets", "--images", images, "--out", out, "--teacher", teacher,
        "--batch-size", 4, *more, code=code,
    )  # fmt: skip


def unit_of(out: Path) -> dict[str, Any]:
    group = zarr.open_group(out, mode="r")["view-00/images-000000"]
    assert isinstance(group, zarr.Group)
    return {name: values_of(group, name) for name in ("codes", "prior")}


@pytest.mark.parametrize(
    ("family", "prior", "more"),
    [
        ("siglip", "pool", ("--grid", 4)),
        ("gap", "uniform", ("--grid", 4, "--prior", "uniform")),
        ("convnext", "uniform", ("--grid", 4, "--prior", "uniform")),
        ("pe", "rollout", ("--grid", 3, "--prior", "rollout", "--layers", 2)),
    ],
)
def test_a_student_trains_from_any_tower(
    family: str, prior: str, more: tuple[Any, ...], image_shards: Path, tmp_path: Path
) -> None:
    store, targets, run = (tmp_path / name for name in ("t.zarr", "targets", "run"))
    with smaller(family):
        teacher = folder_of(family, tmp_path)
        extract(image_shards, teacher, store, *more)
    grid = more[1]
    identity = read_identity(str(store))["teacher"]
    assert (identity["prior"], identity["grid"]) == (prior, [grid, grid])
    unit = unit_of(store)
    assert unit["codes"].shape == (10, 1 + grid * grid, identity["width"])
    assert unit["prior"].shape == (10, grid * grid)
    assert bool((unit["prior"] > 0).all())
    if prior != "rollout":
        np.testing.assert_allclose(unit["prior"].sum(axis=1), 1, rtol=1e-5)
    run_cli("pack-targets", "--targets", store, "--out", targets)
    pretrain(image_shards, targets, run, "--image-size", 8 * grid)
    assert state(run) == "done"
    assert all(np.isfinite(line["loss"]) for line in log(run) if "loss" in line)


def test_a_tower_that_pools_by_averaging_asks_for_a_prior(
    image_shards: Path, tmp_path: Path, capsys
) -> None:
    with smaller("gap"):
        teacher = folder_of("gap", tmp_path)
        for more in ((), ("--dry-run",)):
            extract(image_shards, teacher, tmp_path / "t.zarr", *more, code=2)
            error = capsys.readouterr().err
            assert "choose --prior rollout or --prior uniform" in error
            assert error.count("\n") == 1


def test_an_existing_stores_precision_is_gone_on_with(
    image_shards: Path, tiny_clip: Path, tmp_path: Path, capsys
) -> None:
    """Whatever this machine would choose, the store's own wins, unless it is overwritten."""
    own = "bf16" if has_bfloat16(pick_device("auto")) else "fp32"
    teacher, out = f"local-dir:{tiny_clip}", tmp_path / "t.zarr"
    for precision in ("fp32", "bf16"):
        extract(image_shards, teacher, out, "--precision", precision, "--overwrite")
        extract(image_shards, teacher, out, "--views", 2)
        assert read_identity(str(out))["teacher"]["precision"] == precision
        capsys.readouterr()
        extract(image_shards, teacher, out, "--views", 3, "--dry-run")
        assert "units to do: 3, done: 6" in capsys.readouterr().out
    extract(image_shards, teacher, out, "--overwrite")
    assert read_identity(str(out))["teacher"]["precision"] == own


def test_compiling_is_part_of_what_targets_are(
    image_shards: Path, tiny_clip: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    rows: set[int] = set()

    def note(module: torch.nn.Module, *, dynamic: bool) -> None:
        assert not dynamic
        compiled.append(module)

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if isinstance(module, torch.nn.Conv2d):
            rows.add(len(inputs[0]))

    monkeypatch.setattr(torch.nn.Module, "compile", note)
    teacher, out = f"local-dir:{tiny_clip}", tmp_path / "t.zarr"
    extract(image_shards, teacher, out)
    assert not compiled
    extract(image_shards, teacher, out, "--compile", "--dry-run", code=1)
    assert "teacher.compiled is False there and True here" in capsys.readouterr().err
    assert not compiled
    with before_modules(count):
        extract(image_shards, teacher, out, "--compile", "--overwrite", "--batch-size", 5)
    assert len(compiled) == 1  # of two blocks: attention is read off the last
    assert rows == {5}  # whatever the shards have
    assert read_identity(str(out))["teacher"]["compiled"]
