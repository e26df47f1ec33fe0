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
SURFACES = tuple(
    f"tests/{name}"
    for name in (
        *("cli", "cluster", "codecs", "data", "encoders", "extraction", "images", "models"),
        *("planning", "pretraining", "report", "shards", "storage", "targets", "teacher"),
        *("training", "weights", "end_to_end/test_dask_stages.py", "evaluate"),
    )
)
"""Tests of what calls a dependency itself; stages, docs and workflows go by way of that."""


def run_tests(session: nox.Session, *pip: str) -> None:
    """Install the project with what its tests need, run them, and delete what was installed."""
    session.install("--no-compile", "--editable", ".[test]", *pip)
    session.run("python", "-m", "pip", "check")
    session.run("python", "-m", "pip", "freeze", "--exclude-editable")
    session.run(
        *("python", "-m", "pytest", "--quiet", *(session.posargs or SURFACES)),
        env={"PYTHONHASHSEED": "0"},
    )
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
