"""Try mutations in a copy of the checkout: the working tree is never touched."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from tests.mutations.table import Mutation

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "_build")
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
# What pytest exits with when tests pass, when some fail, and when a file cannot be imported.
PASSED, ENDS = 0, (0, 1, 2)
FORKS = Path(__file__).parent / "forks.py"
LIBRARIES = (
    "matplotlib.pyplot", "open_clip", "segmentation_models_pytorch", "sklearn.linear_model",
    "timm.data.mixup", "torch.utils.tensorboard",
    "torchvision.transforms.v2", "webdataset", "zarr",
)  # fmt: skip
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    # Compiled files are told apart by second and size, which a mutation may both keep.
    "PYTHONDONTWRITEBYTECODE": "1",
    # No test needs a plugin but that of time limits, and to load all takes longer than many a test.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
TIMED = ("-p", "pytest_timeout")


class Trials:
    """Mutate a copy and run tests in it; a context manager.

    Args:
        root: the checkout.
        folder: where the copy and pytest's output may lie.
        libraries: what is loaded once for all trials.
    """

    def __init__(self, root: Path, folder: Path, libraries: Sequence[str] = LIBRARIES) -> None:
        self._copy, self._output = folder / "copy", folder / "output.txt"
        # `milan_pipeline/stages` is a link; were it followed, mutations in `stages` would be lost.
        shutil.copytree(root, self._copy, symlinks=True, ignore=LEFT_OUT)
        self._pytest = subprocess.Popen(
            [sys.executable, FORKS, self._output, *libraries],
            cwd=self._copy,
            env=os.environ | SETTINGS | {"PYTHONPATH": str(self._copy)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pytest.communicate()

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
        words = ["-q", "-p", "no:cacheprovider", *TIMED, f"--maxfail={most}", *tests]
        code, said = self._run(words)
        failed = FAILED.findall(said)
        if code not in ENDS or (code == PASSED) == bool(failed):
            raise RuntimeError(f"pytest {' '.join(words)} exits with {code}: {said[-3000:]}")
        return failed

    def _run(self, words: list[str]) -> tuple[int, str]:
        requests, answers = self._pytest.stdin, self._pytest.stdout
        assert requests is not None
        assert answers is not None
        requests.write(json.dumps(words) + "\n")
        requests.flush()
        code = int(answers.readline())
        return code, self._output.read_text(encoding="utf-8")

    @contextlib.contextmanager
    def _mutated(self, mutation: Mutation) -> Iterator[None]:
        path = self._copy / mutation.file
        source = path.read_text(encoding="utf-8")
        path.write_text(mutation.applied(source), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(source, encoding="utf-8")
