"""Each Python with the oldest and with the newest dependencies: `make matrix`."""

import shutil
from pathlib import Path

import nox

from tests.repository.bounds import lower_bounds

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"

OLDEST = "3.11"
PYTHONS = [OLDEST, "3.12", "3.13"]
# What tests need beside old dependencies; pip finds it by itself, but only after an hour.
TOOLS_BESIDE_OLD = ("boto3<1.42", "cfn-lint<1.48")
SURFACES = {
    "click, PyYAML": ("cli/test_options.py", "cli/test_recipes.py"),
    "Dask": ("cluster/test_dask_worker.py", "extraction/test_on_dask.py"),
    "fsspec, s3fs, gcsfs, aiohttp": ("storage",),
    "matplotlib, Jinja": ("report/test_pages.py", "stages/test_inspect.py"),
    "ONNX, transformers": ("weights/test_onnx_file.py", "weights/test_huggingface.py"),
    "open_clip": ("teacher/test_open_clip_tables.py", "teacher/test_teacher.py"),
    "Pillow, simplejpeg, pyarrow": ("images/test_decode.py", "images/tables"),
    "scikit-learn": ("evaluate/probe/test_classifiers.py",),
    "segmentation_models_pytorch": ("evaluate/segmentation/test_model.py",),
    "tensorboard": ("training/test_run_log.py",),
    "timm": ("models/test_timm_names.py", "models/test_vit.py", "teacher/sources"),
    "torch": ("training/test_trainer.py", "training/test_compiling.py", "training/test_optim.py"),
    "WebDataset": ("data/test_stream.py", "shards/test_sequential.py", "shards/test_writer.py"),
    "Zarr, numcodecs": tuple(f"targets/test_{name}.py" for name in ("layout", "writer", "reader")),
    "all, from images to a student": ("stages/pretrain/test_command.py",),
}
"""Tests that call each dependency; all tests would take hours."""
TESTS = tuple(f"tests/{place}" for places in SURFACES.values() for place in places)


def run_tests(session: nox.Session, *pip: str) -> None:
    """Install the project with what its tests need, run them, and delete what was installed."""
    session.install("--no-compile", "--editable", ".[test]", *pip)
    session.run("python", "-m", "pip", "check")
    session.run("python", "-m", "pip", "freeze", "--exclude-editable")
    words = ("python", "-m", "pytest", "--quiet", *(session.posargs or TESTS))
    if session.run(*words, env={"PYTHONHASHSEED": "0"}):  # else --install-only was asked for
        shutil.rmtree(session.virtualenv.location)  # up to 7 GB


@nox.session(python=PYTHONS)
def oldest(session: nox.Session) -> None:
    """Dependencies as old as pyproject.toml allows; tools of tests are new."""
    lines = [f"{name}=={version}" for name, version in lower_bounds().items()]
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join([*lines, *TOOLS_BESIDE_OLD, ""]), encoding="utf-8")
    run_tests(session, "--constraint", str(constraints))


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Dependencies as new as pip finds them."""
    run_tests(session, "--upgrade", "--upgrade-strategy", "eager")


@nox.session(python=OLDEST)
def plain(session: nox.Session) -> None:
    """The package without extras: images become shards, and a store is planned."""
    session.install(".")
    session.run("python", "-m", "pip", "check")
    shards = session.create_tmp()
    session.run("milan-pipeline", "pack-images", "docs", shards, "--overwrite")
    session.run("milan-pipeline", "plan", "--teacher", "ViT-B-16", "--images", shards)
