"""The default tests on each Python, with the oldest and the newest dependencies: `make matrix`."""

from pathlib import Path

import nox

from tests.repository.bounds import lower_bounds

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"

OLDEST = "3.11"
PYTHONS = [OLDEST, "3.12", "3.13"]
TESTS = ("--numprocesses", "auto", "--maxprocesses", "8", "--dist", "loadfile")
# What tests need beside old dependencies; pip finds it by itself, but only after an hour.
TOOLS_BESIDE_OLD = ("boto3<1.42", "cfn-lint<1.48")


def run_tests(session: nox.Session, *pip: str) -> None:
    """Install the project with what its tests need, and run what `make test` runs."""
    session.install("--editable", ".[test]", *pip)
    session.run("python", "-m", "pip", "check")
    session.run("python", "-m", "pytest", *(session.posargs or TESTS), env={"PYTHONHASHSEED": "0"})


@nox.session(python=OLDEST)
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
