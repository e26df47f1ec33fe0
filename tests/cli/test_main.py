"""The command group: exit codes, one-line errors, and no torch for `--help`."""

import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from inspect import getsource
from pathlib import Path
from typing import NoReturn
from zipfile import ZipFile

import click
import pytest

from milan_pipeline.cli.main import exit_with
from milan_pipeline.cli.recipes import STAGES_GROUP, find_recipe, read_sections, recipe_names
from milan_pipeline.core.interrupts import stop_request
from milan_pipeline.errors import (
    BadImageError,
    ConfigError,
    DataError,
    InterruptedRunError,
    MilanError,
    MismatchError,
    MissingDataError,
    StorageError,
)
from tests.support import cli
from tests.support.cli import NO_HEAVY_IMPORTS, run_cli

STAGES = (
    "pack-images", "index", "extract-targets", "pack-targets", "pretrain", "probe",
    "import-checkpoint", "export", "codecs", "finetune", "compare",
)  # fmt: skip
VALIDATE_RECIPES = """
from milan_pipeline.cli.recipes import find_recipe, read_sections, recipe_names
for name in recipe_names():
    for stage in read_sections(find_recipe(name)):
        configured(stage, "--config", name, *PLACES[stage])
        print(name, stage)
"""


def run_stage(function: Callable[[], None], *words: str) -> int | str | None:
    """Run a stage that calls a function; return its exit code."""
    command = click.Command("stage", callback=function)
    command.params.append(click.Option(["--debug"], is_flag=True, expose_value=False))
    try:
        exit_with(command, list(words), "stage")
    except SystemExit as ended:
        return ended.code
    return 0


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("--x 1 is wrong"), 2, "Error: --x 1 is wrong"),
        (DataError("x.tar\nis damaged"), 1, "Error: x.tar is damaged"),
        (MissingDataError("no x"), 1, "Error: no x"),
        (StorageError("disk full"), 1, "Error: disk full"),
        (InterruptedRunError("SIGTERM received"), 75, "Interrupted: SIGTERM received"),
        (KeyboardInterrupt(), 75, "Interrupted; run the same command again to go on."),
        (
            PermissionError(13, "Permission denied", "/x/y"), 1,
            ("Error: /x/y cannot be used (Permission denied); "
             "give yourself the right to it and to the folders above"),
        ),
        (
            OSError(36, "File name too long", "x" * 300), 1,
            f"Error: {'x' * 120}… cannot be used (File name too long); give a shorter name",
        ),
        (
            OSError(5, "Input/output error", b"\xff.jpg"), 1,
            ("Error: \\udcff.jpg cannot be used (Input/output error); "
             "check that path, and the disk or network it lies on"),
        ),
        (
            OSError(28, "No space left on device"), 1,
            ("Error: what is printed cannot be written (No space left on device); make room where "
             "standard output goes, or send it to another place"),
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"), 1,
            ("Error: the memory that this process may use does not suffice (libtorch_cpu.so: "
             "failed to map segment from shared object); free some, or raise its limit "
             "(`ulimit -v`, or the --mem of a Slurm job)"),
        ),
        (
            ImportError("libcudart.so.12: cannot open shared object file"), 1,
            ("Error: a package cannot be loaded (libcudart.so.12: cannot open shared object "
             "file); install it again, as `pip check` says"),
        ),
        (
            KeyError("x"), 1,
            "Error: unexpected KeyError: 'x'; --debug shows where it came from",
        ),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    assert run_stage(raising(error)) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.strip() == line


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stage(raising(DataError("x.tar is damaged")), "--debug") == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("Error: x.tar is damaged\n")


def test_a_notebooks_backend_for_plots_is_not_taken() -> None:
    code = (
        "from milan_pipeline.cli.main import main; main(['--version']);"
        "import matplotlib; print(matplotlib.get_backend())"
    )
    notebook = os.environ | {"MPLBACKEND": "module://no_such_inline.backend_inline"}
    words = [sys.executable, "-c", code]
    answer = subprocess.run(words, env=notebook, check=True, capture_output=True, text=True)
    assert answer.stdout.split()[-1].lower() == "agg"


def test_success_is_0() -> None:
    assert run_stage(lambda: None) == 0


@pytest.mark.parametrize(
    "words", [["no-such-stage"], ["pack-images"], ["pack-images", "--no-such-option"], []]
)
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run_cli(*words, code=2)
    assert "Traceback" not in capsys.readouterr().err


def test_version_and_help_are_0(capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("--version")
    run_cli("--help")
    output = capsys.readouterr().out
    assert all(stage in output for stage in STAGES)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_ends_at_the_next_good_point_with_75(
    capsys: pytest.CaptureFixture[str], name: signal.Signals
) -> None:
    before = signal.getsignal(name)

    def work() -> None:
        with stop_request() as stop:
            stop.raise_if_asked("nothing")
            os.kill(os.getpid(), name)
            stop.raise_if_asked("everything is kept")

    assert run_stage(work) == 75
    assert f"{name.name} received; everything is kept; run the same" in capsys.readouterr().err
    assert signal.getsignal(name) == before


def test_every_error_is_ours_and_a_builtin() -> None:
    for error in (
        BadImageError, ConfigError, DataError, InterruptedRunError, MismatchError,
        MissingDataError, StorageError,
    ):  # fmt: skip
        assert issubclass(error, MilanError)
        assert any(base.__module__ == "builtins" for base in error.__mro__[:-3])


@pytest.mark.slow
def test_a_wheel_runs_outside_the_checkout(
    image_shards: Path, pictures: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    # A copy, so that the checkout's own build folder neither shows up in the wheel nor is written.
    root, source = Path(__file__).parents[2], tmp_path / "source"
    wanted = {"pyproject.toml", "README.md", "LICENSE", "milan_pipeline", "stages", "workflows"}
    shutil.copytree(
        root, source, symlinks=True,
        ignore=lambda at, names: {*names} - wanted if Path(at) == root else set(),
    )  # fmt: skip
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*build, tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("milan_pipeline-*.whl")
    tops = {name.partition("/")[0] for name in ZipFile(wheel).namelist()}
    assert tops == {"milan_pipeline", f"milan_pipeline-{version('milan-pipeline')}.dist-info"}
    site, scratch = tmp_path / "site", tmp_path / "scratch"
    scratch.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target"]
    subprocess.run([*install, site, wheel], check=True, capture_output=True)

    def run(script: str, *words: object) -> str:
        check = f"\nassert __import__('milan_pipeline').__file__.startswith({str(site)!r})"
        command = [sys.executable, "-P", "-c", script + check, *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(site)}
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for stage in project["entry-points"][STAGES_GROUP]:
        assert run(NO_HEAVY_IMPORTS, stage, "--help").startswith("Usage: milan-pipeline")
    packed = run(NO_HEAVY_IMPORTS, "pack-images", pictures, "dest", "--dry-run")
    assert "shards to do: 1" in packed
    plain = "import sys\nfrom milan_pipeline.cli.main import main\nmain(sys.argv[1:])"
    extracted = run(
        plain, "extract-targets", "--images", image_shards, "--out", "targets.zarr", "--teacher",
        f"local-dir:{tiny_clip}", "--dry-run",
    )  # fmt: skip
    assert "units to do: 3, done: 0" in extracted
    validated = run(getsource(cli) + VALIDATE_RECIPES)
    recipes = {name: read_sections(find_recipe(name)) for name in recipe_names()}
    assert validated.splitlines() == [
        f"{name} {stage}" for name in recipes for stage in recipes[name]
    ]
    assert "units to do: 12, done: 0" in run(
        plain, "extract-targets", "--config", "imagenet1k-vit-b16", "--images", image_shards,
        "--out", "targets.zarr", "--dry-run",
    )  # fmt: skip
    assert "4 jobs to submit" in run(
        plain, "submit", "imagenet1k-vit-b16", "--images", image_shards, "--out", "milan",
        "--dry-run",
    )  # fmt: skip
    assert (site / "milan_pipeline/workflows/dask/site.yaml").exists()
    assert (site / "milan_pipeline/workflows/snakemake/Snakefile").exists()
    assert (site / "milan_pipeline/workflows/snakemake/profiles/slurm/config.yaml").exists()
    assert (site / "milan_pipeline/report/page.html").exists()
    assert (site / "milan_pipeline/cli/stage_functions.pyi").exists()  # for editors, as py.typed
    assert (site / "milan_pipeline/py.typed").exists()
    assert not list(site.rglob("*.safetensors"))  # the demo's teacher stays in the checkout
    assert list(scratch.iterdir()) == []
