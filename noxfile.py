"""The default tests with the oldest and the newest dependencies, on each Python: `make matrix`."""

from pathlib import Path

import nox

from tests.repository.bounds import lower_bounds

OLDEST, NEWEST = "3.11", ["3.11", "3.12", "3.13"]
nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"


def default_tests(session: nox.Session, *pip: str) -> None:
    """Install the project, see that it is complete, and run what `make test` does."""
    session.install("--editable", ".[test]", *pip)
    session.run("python", "-m", "pip", "check")
    session.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *session.posargs)


@nox.session(python=OLDEST)
def oldest(session: nox.Session) -> None:
    """Test with every dependency as old as pyproject.toml allows; tools of tests are new."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    lines = [f"{name}=={version}\n" for name, version in lower_bounds().items()]
    constraints.write_text("".join(lines), encoding="utf-8")
    default_tests(session, "--constraint", str(constraints))


@nox.session(python=NEWEST)
def newest(session: nox.Session) -> None:
    """Test with every dependency as new as pip finds it."""
    default_tests(session, "--upgrade", "--upgrade-strategy", "eager")
