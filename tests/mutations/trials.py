"""Try mutations in a copy of the checkout: the working tree is never touched."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutations.table import Mutation

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "_build")
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
# What pytest exits with when tests pass, when some fail, and when a file cannot be imported.
PASSED, ENDS = 0, (0, 1, 2)


class Trials:
    """Mutate a copy and run tests in it.

    Args:
        root: the checkout.
        folder: where to copy it to; not there yet.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(root, folder, ignore=LEFT_OUT)

    def catcher(self, mutation: Mutation, *, whole: bool = False) -> str | None:
        """Return the first test that fails with a mutation, or None: it survives.

        Args:
            mutation: what is tried, and by which tests.
            whole: run all default tests where those pass.
        """
        with self._mutated(mutation):
            failed = self.failing(mutation.tests, most=1)
            if whole and not failed:
                failed = self.failing((), most=1)
        return failed[0] if failed else None

    def failing(self, tests: Sequence[str], *, most: int = 0) -> list[str]:
        """Run default tests in the copy as it stands; return those that fail.

        Args:
            tests: files or single tests; empty are all.
            most: stop after so many failures; 0 runs them all.

        Raises:
            RuntimeError: pytest could not run them.
        """
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        words += [f"--maxfail={most}", *tests]
        environment = os.environ | {
            "PYTHONPATH": str(self._folder),
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            # Compiled files are told apart by second and size, which a mutation may both keep.
            "PYTHONDONTWRITEBYTECODE": "1",
            # No test needs a plugin, and to load them takes longer than many a test.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        done = subprocess.run(
            words, cwd=self._folder, env=environment, capture_output=True, text=True, check=False
        )
        failed = FAILED.findall(done.stdout)
        if done.returncode not in ENDS or (done.returncode == PASSED) == bool(failed):
            raise RuntimeError(f"{' '.join(words)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return failed

    @contextlib.contextmanager
    def _mutated(self, mutation: Mutation) -> Iterator[None]:
        path = self._folder / mutation.file
        source = path.read_text(encoding="utf-8")
        path.write_text(mutation.applied(source), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(source, encoding="utf-8")
