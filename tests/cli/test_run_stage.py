"""Stages run from Python: by name or as functions, with results and errors of Python."""

import inspect
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import click
import numpy as np
import pytest

import milan_pipeline as mp
from milan_pipeline.cli import run_stage as running
from milan_pipeline.errors import MilanError


def test_a_stage_runs_by_name_and_returns_its_document(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    words = {"source": pictures, "dest": out, "samples_per_shard": 10}
    planned = mp.run_stage("pack-images", **words, dry_run=True)
    assert planned.summary["shards_to_do"] == 3
    with pytest.raises(mp.errors.MissingDataError, match="pack-images wrote no folder"):
        _ = planned.out
    assert not out.exists()
    done = mp.run_stage("pack-images", **words, seed=None)
    assert done.stage == "pack-images"
    assert done.out == str(out)
    assert done.summary["shards"] == len(mp.load_manifest(str(out), kind="images").shards) == 3


def test_a_function_takes_arguments_by_place_and_by_name(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    first = mp.pack_images(
        pictures, out, samples_per_shard=10, quiet=True, dry_run=False, debug=False
    )
    again = mp.pack_images(pictures, dest=str(tmp_path / "a"), samples_per_shard=10, quiet=True)
    assert first.summary["shards"] == 3
    assert again.summary["nothing_to_do"] is True


def test_a_report_is_returned(pictures: Path, tmp_path: Path, capsys) -> None:
    mp.pack_images(pictures, tmp_path / "a", quiet=True)
    found = mp.inspect(tmp_path / "a", quiet=True)
    capsys.readouterr()
    assert list(found.summary) == list(mp.inspect(tmp_path / "a").summary)
    assert capsys.readouterr().out.startswith("image shards\n")  # as the command prints it


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("pack", {}, "there is no stage 'pack'; take one of .*pack-images"),
        ("pretrain", {"image": "x"}, "pretrain: No such option.*--image"),
        ("pretrain", {"images": "x", "out": "y", "epochs": "many"}, "pretrain: .*--epochs"),
    ],
)
def test_what_is_wrong_is_raised(stage, options, message) -> None:
    with pytest.raises(mp.errors.ConfigError, match=message):
        mp.run_stage(stage, **options)


def test_a_function_refuses_values_that_have_no_place() -> None:
    with pytest.raises(mp.errors.ConfigError, match=r"pack_images takes 2 values .* and not 3"):
        mp.pack_images("a", "b", 1000)  # type: ignore[call-arg, arg-type]
    with pytest.raises(mp.errors.ConfigError, match="Missing argument 'DEST'"):
        mp.pack_images("a")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="no stage of the name 'codecs'"):
        running.stage_function("codecs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": True, "dry_run": True}, "epochs=True is a truth value; give a text, a number"),
        ({"targets": {"a": Path("b")}}, r"targets takes no dictionary; .* as \['a=b'\]"),
        ({"images": object()}, "images takes no object; give a text"),
        ({"targets": []}, "targets is an empty list; give a value, or leave it out"),
    ],
)
def test_a_value_that_no_option_takes_is_refused(options, message) -> None:
    """On a command line, `--epochs --dry-run` would be an option with the other as its value."""
    given = {"images": "x", "out": "y", **options}
    with pytest.raises(mp.errors.ConfigError, match=message):
        mp.run_stage("pretrain", **given)


def test_lists_may_be_arrays_and_folders_lists(tmp_path: Path) -> None:
    given = {"k": np.array([3, 5]), "label": None, "attentive": np.bool_(False)}
    found = list(running._words(running._command("probe"), given))
    assert found == ["--k=3", "--k=5", "--no-attentive"]
    assert list(running._words(running._command("probe"), {"k": ()})) == []  # what is left out
    for folders in ([tmp_path, tmp_path / "b"], [[tmp_path, tmp_path / "b"]]):
        with pytest.raises(mp.errors.MissingDataError, match=f"^{tmp_path} holds no scores.json"):
            mp.compare(*folders)


def test_a_function_shows_its_parameters() -> None:
    found = inspect.signature(mp.pretrain).parameters
    assert found["epochs"].default == 400
    assert found["images"].kind is inspect.Parameter.KEYWORD_ONLY
    assert found["masking"].annotation == 'Literal["semantic", "random", "block"] | None'
    assert "as_json" not in found
    assert "epochs: Passes over the images." in (mp.pretrain.__doc__ or "")
    folders = inspect.signature(mp.compare).parameters["folders"]
    assert folders.kind is inspect.Parameter.VAR_POSITIONAL


CODES = [
    (0, None),
    (75, "the processes of bake were interrupted; run it again"),
    (1, "a process of bake ended with exit code 1"),
]


@pytest.mark.parametrize(("code", "message"), CODES)
def test_a_stage_that_starts_processes_does_not_end_ours(monkeypatch, code, message) -> None:
    """Another package's stage that ends as one that has waited for its processes."""

    @click.command(params=[click.Option(["--out"], default="pies")])
    def command(out: str) -> None:
        sys.exit(code)

    monkeypatch.setattr(sys.modules[__name__], "command", command, raising=False)
    entry = EntryPoint(name="bake", value=f"{__name__}:command", group="")
    monkeypatch.setattr(running, "installed_stages", lambda: EntryPoints([entry]))
    if message is None:
        assert mp.run_stage("bake", out="cakes").out == "cakes"
        assert mp.run_stage("bake").out == "pies"  # as by a recipe
    else:
        with pytest.raises(MilanError, match=message):
            mp.run_stage("bake", out="cakes")
