"""codecs: its table, its list, its picture; what it refuses, in sentences."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.stages.codecs.report import measured
from tests.support.cli import run_cli
from tests.support.fitted import sample

KEYS = {
    "codec", "targets", "bytes_per_token", "bytes_per_sample", "compression", "files_compression",
    "store_compression", "mean_cosine", "p01_cosine", "cls_cosine", "colour_agreement",
    "bits_over_bound", "encode_per_s", "decode_per_s", "rest_cosine", "rest_p01_cosine",
}  # fmt: skip
FEW = ("--codec", "float16", "--codec", "int8", "--codec", "joint:bytes=3", "--device", "cpu")


def test_the_list(target_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plots" / "few.png"
    run_cli("codecs", target_store, *FEW, "--plot", plot, "--synthetic", 1, "--json")
    output = capsys.readouterr()
    rows = json.loads(output.out)
    codecs = ["float16", "int8", "joint:bytes=3"]
    assert [(row["targets"], row["codec"]) for row in rows] == [
        (targets, codec) for targets in ("store", "synthetic") for codec in codecs
    ]
    for row in rows:
        assert set(row) == KEYS
        is_exact = row["codec"] == "float16" and row["targets"] == "store"
        assert (row["bits_over_bound"] is None) == is_exact
        assert all(
            type(row[key]) in (int, float)
            for key in KEYS - {"codec", "targets"}
            if row[key] is not None
        )
        assert row["p01_cosine"] <= row["mean_cosine"] <= 1 + 1e-12
        assert row["encode_per_s"] > 0
    assert [row["compression"] for row in rows[:3]] == [1, 48 / 26, 16]
    assert f"picture: {plot}" in output.err
    with Image.open(plot) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        assert picture.height > 800  # a row for each set


def test_the_table(
    target_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    run_cli("codecs", target_store, *FEW, "--samples", 5)
    title, note, heading, *table, last = capsys.readouterr().out.splitlines()
    assert title.startswith("targets.zarr: 5 images of 17 x 24; effective rank ")
    assert note.startswith("note: a view has 24 images, fewer than 8192")
    assert [line.split()[0] for line in (heading, *table)] == [
        "codec", "float16", "int8", "joint:bytes=3",
    ]  # fmt: skip
    assert len({len(line) for line in (heading, *table)}) == 1
    assert table[1].split()[1:4] == ["26", "442", "1.85x"]
    assert last == "picture: codecs.png"
    assert (tmp_path / "codecs.png").stat().st_size > 10_000


def test_all_codecs_are_measured_unless_some_are_named() -> None:
    from milan_pipeline.stages.codecs.report import chosen

    wide = chosen((), 512)
    assert list(wide)[:6] == ["float16", "bfloat16", "int8", "high", "compact", "tiny"]
    # Of the joint codec's eight ratios, three are the levels'.
    assert len(wide) == 6 + 4 + 5
    assert not any(name.startswith("rotation") for name in chosen((), 100))
    assert len(set(wide.values())) == len(wide)
    narrow = chosen((), 24)
    assert {"high", "compact", "tiny"} < set(narrow)
    assert len(set(narrow.values())) == len(narrow)
    assert list(chosen(("int8",), 24)) == ["int8"]


def test_a_store_that_loses_nothing_alone_can_be_drawn(target_store: Path, tmp_path: Path) -> None:
    plot = tmp_path / "float16.png"
    run_cli("codecs", target_store, "--codec", "float16", "--plot", plot)
    assert plot.stat().st_size > 10_000


def test_an_unfinished_store_is_refused_unless_allowed(
    target_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(target_store, tmp_path / "targets.zarr")
    path = store / "extract-targets.json"
    path.write_bytes(record_bytes(json.loads(path.read_text()) | {"state": "running"}))
    (store / "done/view-00/images-000001.json").unlink()
    command = ("codecs", store, *FEW, "--plot", tmp_path / "x.png")
    run_cli(*command, code=1)
    assert f"{store} is not finished; run extract-targets again, or --allow" in read(capsys)
    run_cli(*command, "--allow-unfinished")
    assert "14 images" in capsys.readouterr().out
    path.write_bytes(record_bytes(json.loads(path.read_text()) | {"state": "done"}))
    run_cli(*command, code=1)
    assert f"{store} lacks view-00/images-000001 (not done yet)" in read(capsys)


def test_what_is_not_there_or_not_known_is_refused(
    target_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, plot = (target_store,), ("--plot", tmp_path / "x.png")
    run_cli("codecs", tmp_path / "none", *plot, code=1)
    assert "holds no target store; `milan-pipeline extract-targets` makes one" in read(capsys)
    run_cli("codecs", *store, *plot, "--codec", "mp3", code=2)
    assert "--codec 'mp3' is unknown; choose one of float16" in read(capsys)
    run_cli("codecs", *store, *plot, "--codec", "joint:bytes=25", code=2)
    assert "is more than int8 takes for targets of width 24" in read(capsys)
    run_cli("codecs", *store, "--plot", "x.pdf", code=2)
    assert "--plot x.pdf is not a PNG; use a name that ends in .png" in read(capsys)
    run_cli("codecs", *store, *plot, "--synthetic", "nan", code=2)
    run_cli("codecs", *store, *plot, "--samples", 0, code=2)
    run_cli("codecs", *store, "--plot", "http://example.com/x.png", code=1)
    assert not (tmp_path / "x.png").exists()


def read(capsys: pytest.CaptureFixture[str]) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    return output.err


def test_a_codec_that_cannot_be_fitted_costs_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    targets = SimpleNamespace(name="store", fit_nND=sample(3))
    measurement: Any = SimpleNamespace(targets=targets, of=lambda text, _: text)
    specs: Any = {text: parse_codec(text) for text in ("float16", "joint:bytes=13")}
    found: list[Any] = measured(measurement, specs)
    assert found == ["float16"]
    assert "joint:bytes=13 is left out: " in capsys.readouterr().err
    del specs["float16"]
    with pytest.raises(ConfigError, match="more than int8 takes"):
        measured(measurement, specs)
