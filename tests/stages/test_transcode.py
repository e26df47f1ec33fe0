"""transcode: what is stored, what is done again, what is refused, what later stages make of it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch.nn import functional as F

from milan_pipeline.codecs.interface import Codec, decode_prior
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.provenance.record import record_bytes
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.stages.verify.report import _Findings
from milan_pipeline.targets.codec_bytes import most_store_codec_bytes
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.store_record import finished_units, read_store_record
from milan_pipeline.targets.stored_codes import decoded_targets
from milan_pipeline.targets.verified_objects import VerifiedObjects
from tests.support.cli import run_cli
from tests.support.damage import change
from tests.support.disturbances import run_and_kill, stopped_at_put
from tests.support.processes import files_without
from tests.support.remote import noting, watched

CODEC = "joint:bytes=3"
AS_THEY_ARE = ("key", "box", "flip", "size", "digest")


def transcode(source: Path, out: Path, *words: object, codec: str = CODEC, code: int = 0) -> Path:
    run_cli("transcode", source, out, "--codec", codec, *words, code=code)
    return out


def pack(store: Path, out: Path, *words: object, code: int = 0) -> Path:
    run_cli("pack-targets", "--targets", store, "--out", out, *words, code=code)
    return out


def content(store: Path) -> dict[str, Any]:
    return files_without(store, "transcode.json")


def record_of(store: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "transcode.json").read_text())
    return found


def units(store: Path) -> list[tuple[Any, Any, Any]]:
    """Every finished unit with its mark and its arrays."""
    url = str(store)
    identity = read_identity(url)
    record = read_store_record(url, identity)
    found = finished_units(url, identity, record, views=None, allow_unfinished=False)
    return [(unit, mark, open_unit(url, unit, mark)) for unit, mark in found]


def codec_of_store(store: Path) -> Codec:
    return read_store_codec(str(store), read_identity(str(store)))


@pytest.fixture(scope="module")
def transcoded(target_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target store by a fitted codec."""
    return transcode(target_store, tmp_path_factory.mktemp("transcoded") / "targets.zarr")


@pytest.fixture
def source(target_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(target_store, tmp_path / "source.zarr"))


def test_the_identity_says_where_targets_come_from(target_store: Path, transcoded: Path) -> None:
    before, after = read_identity(str(target_store)), read_identity(str(transcoded))
    assert after["transcoded_from"] == before["codec"] == {"name": "float16"}
    assert (after["codec"]["name"], after["codec"]["bytes"]) == ("joint", 3)
    rest = {"codec", "transcoded_from"}
    assert {name: after[name] for name in after.keys() - rest} == {
        name: before[name] for name in before.keys() - rest
    }
    record = record_of(transcoded)
    assert (record["state"], record["counts"]["targets"]) == ("done", 48)
    theirs = json.loads((target_store / "extract-targets.json").read_text())
    assert record["source"]["extraction"] == theirs["config"]
    assert record["extent"] == theirs["extent"]


@pytest.mark.parametrize("codec", [CODEC, "int8"])
def test_targets_are_nearly_the_same_and_the_rest_is(
    target_store: Path, transcoded: Path, tmp_path: Path, codec: str
) -> None:
    out = transcoded if codec == CODEC else transcode(target_store, tmp_path / "o", codec=codec)
    pairs = zip(units(target_store), units(out), strict=True)
    for (unit, mark, before), (same_unit, new_mark, after) in pairs:
        assert unit == same_unit
        assert (new_mark.n, new_mark.skipped) == (mark.n, mark.skipped)
        for name in AS_THEY_ARE:
            assert np.array_equal(before.values(name), after.values(name))
        ours, theirs = (
            decoded_targets(after, codec_of_store(out)),
            decoded_targets(before, codec_of_store(target_store)),
        )
        assert F.cosine_similarity(ours, theirs, dim=-1).mean() > (0.9 if codec == CODEC else 0.999)
        prior = after.values("prior")
        assert prior.dtype == (np.uint8 if codec == CODEC else np.float32)
        assert np.allclose(decode_prior(prior), before.values("prior"), rtol=0.05)


def test_a_second_generation_names_the_first(transcoded: Path, tmp_path: Path) -> None:
    between = read_identity(str(transcoded))["codec"]
    wide = transcode(transcoded, tmp_path / "wide.zarr", "--views", 1, codec="float16")
    assert read_identity(str(wide))["transcoded_from"] == {
        **between, "transcoded_from": {"name": "float16"},
    }  # fmt: skip
    other = transcode(transcoded, tmp_path / "other.zarr", "--views", 1, codec="joint:bytes=5")
    for (_, _, before), (_, _, as_floats), (_, _, after) in zip(
        units(transcoded)[:3], units(wide), units(other), strict=True
    ):
        prior = before.values("prior")
        assert np.array_equal(as_floats.values("prior"), decode_prior(prior))
        assert np.array_equal(after.values("prior"), prior)


def test_the_same_bytes_whatever_the_threads(
    target_store: Path, transcoded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.zarr"
    transcode(target_store, out, "--views", 1, "--workers", 0)
    transcode(target_store, out, "--workers", 3)
    assert content(out) == content(transcoded)


def test_a_second_run_has_nothing_to_do(target_store: Path, transcoded: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in transcoded.rglob("*")}
    transcode(target_store, transcoded)
    transcode(target_store, transcoded, "--views", 1)
    assert capsys.readouterr().out.count("nothing to do") == 2
    assert {path: path.stat().st_mtime_ns for path in transcoded.rglob("*")} == before
    transcode(target_store, transcoded, "--dry-run")
    assert "units to do: 0, done: 6\nbytes to write: 0, " in capsys.readouterr().out


def test_killed_at_any_write_it_ends_with_the_same_bytes(
    target_store: Path, transcoded: Path, tmp_path: Path
) -> None:
    undisturbed, killed = content(transcoded), 0
    words = ("--codec", CODEC, "--workers", 0)
    for writes in (0, 11, 12, 70):
        out = tmp_path / f"{writes}.zarr"
        killed += run_and_kill(writes, "transcode", target_store, watched(out), *words)
        transcode(target_store, out, "--workers", 0)
        assert content(out) == undisturbed
    assert killed == 4


def test_an_interrupted_run_goes_on(target_store: Path, transcoded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with stopped_at_put("done/view-00/images-000000.json"):
        run_cli("transcode", target_store, watched(out), "--codec", CODEC, "--workers", 0, code=75)
    assert len(list(out.glob("done/*/*.json"))) == 1
    assert record_of(out)["state"] == "running"
    transcode(target_store, out)
    assert content(out) == content(transcoded)


def test_the_codec_of_an_unfinished_store_is_not_fitted_again(
    source: Path, transcoded: Path, tmp_path: Path, capsys
) -> None:
    """Neither do its units change when the other store grows; what is new joins them."""
    record = source / "extract-targets.json"
    record.write_bytes(record_bytes(json.loads(record.read_text()) | {"state": "running"}))
    mark = source / "done/view-00/images-000002.json"
    late = mark.read_bytes()
    mark.unlink()
    out = tmp_path / "out.zarr"
    transcode(source, out, code=1)
    assert "is not finished; run extract-targets again" in capsys.readouterr().err
    assert not out.exists()
    transcode(source, out, "--allow-unfinished")
    assert "5 units done now; 1 unit is not in " in capsys.readouterr().out
    assert record_of(out)["state"] == "running"
    pack(out, tmp_path / "packed", code=1)
    assert "is not finished; run transcode again" in capsys.readouterr().err
    first = content(out)
    mark.write_bytes(late)
    record.write_bytes(record_bytes(json.loads(record.read_text()) | {"state": "done"}))
    transcode(source, out)
    assert "1 unit done now" in capsys.readouterr().out
    assert first.items() <= content(out).items()
    # Fitted to fewer targets than the other one.
    assert read_identity(str(out))["codec"] != read_identity(str(transcoded))["codec"]
    transcode(source, out, "--overwrite")
    assert content(out) == content(transcoded)


def test_a_unit_is_done_again_when_the_one_it_was_made_of_has_changed(
    source: Path, transcoded: Path, tmp_path: Path, capsys
) -> None:
    out = Path(shutil.copytree(transcoded, tmp_path / "out.zarr"))
    mark = source / "done/view-01/images-000001.json"
    stated = json.loads(mark.read_text())
    mark.write_text(json.dumps(stated | {"skipped": [{"key": "x", "reason": "r"}]}))
    transcode(source, out, "--dry-run")
    said = capsys.readouterr().out
    assert "units to do: 1, done: 5" in said
    assert "view-01/images-000001: the unit that it was transcoded from has changed\n" in said
    before = content(out)
    transcode(source, out)
    assert "6 units, 1 unit done now" in capsys.readouterr().out
    assert {path for path, data in content(out).items() if data != before[path]} == {
        "done/view-01/images-000001.json"
    }
    transcode(source, out)
    assert "nothing to do" in capsys.readouterr().out


def test_a_cosine_is_kept_and_its_size_is_not_searched_again(
    target_store: Path, tmp_path: Path, capsys
) -> None:
    out, packed = tmp_path / "out.zarr", tmp_path / "packed"
    transcode(target_store, out, codec="cosine:0.9")
    codec = read_identity(str(out))["codec"]
    assert (codec["name"], codec["cosine"]) == ("joint", 0.9)
    assert 0.25 <= codec["bytes"] < 24
    transcode(target_store, out, codec="cosine:0.9")
    assert "nothing to do" in capsys.readouterr().out
    transcode(target_store, out, codec="cosine:0.95", code=1)
    assert "codec.cosine is 0.9 there and 0.95 here" in capsys.readouterr().err
    run_cli("pack-targets", "--targets", out, "--out", packed, "--codec", "cosine:0.9")
    assert load_manifest(str(packed), kind="targets").common["identity"] == read_identity(str(out))


@pytest.mark.parametrize("codec", ["int8", CODEC])
def test_a_dry_run_foretells_the_bytes(
    target_store: Path, tmp_path: Path, codec: str, capsys
) -> None:
    out = tmp_path / "out.zarr"
    transcode(target_store, out, "--dry-run", codec=codec)
    said = capsys.readouterr().out
    assert "units to do: 6, done: 0\n" in said
    assert not out.exists()
    about, size = said.split("bytes to write: ")[1].split(" (")[0].rpartition(" ")[::2]
    transcode(target_store, out, codec=codec)
    written = sum(map(len, content(out).values()))
    if codec == "int8":
        assert (about, int(size)) == ("", written)
    else:
        assert about == "about"
        # The codec counts with 16 kinds, of which so few images give two.
        most = most_store_codec_bytes(parse_codec(CODEC), 17, 24)
        assert written <= int(size) < written + most


def test_what_cannot_be_is_refused(
    target_store: Path, transcoded: Path, image_shards: Path, tmp_path: Path, capsys
) -> None:
    def refused(code: int, message: str, *words: object, codec: str = CODEC) -> None:
        for more in ((), ("--dry-run",)):
            run_cli("transcode", *words, "--codec", codec, *more, code=code)
            assert message in capsys.readouterr().err

    out = tmp_path / "out.zarr"
    refused(2, "is already the codec of", target_store, out, codec="float16")
    refused(2, "is already the codec of", transcoded, out)
    refused(2, "is the store that is read", transcoded, f"{transcoded}/", codec="int8")
    refused(2, "'pq' is unknown", target_store, out, codec="pq")
    refused(2, "--workers -1 is below 0", target_store, out, "--workers", -1)
    refused(2, "is a folder of shards", target_store, image_shards)
    refused(1, "holds no target store", tmp_path, out)
    transcode(target_store, out, "--device", "abacus", code=2)
    assert "--device 'abacus' cannot be used" in capsys.readouterr().err
    refused(1, "--views asks for 3", target_store, out, "--views", 3)
    assert not out.exists()
    before = content(transcoded)
    refused(1, "codec.bytes is 3 there and 4 here", target_store, transcoded, codec="joint:bytes=4")
    refused(
        1, "codec.name is 'joint' there and 'int8' here", target_store, transcoded, codec="int8"
    )
    assert content(transcoded) == before


def test_extraction_into_a_transcoded_store_is_refused(
    target_store: Path, image_shards: Path, tiny_clip: Path, tmp_path: Path, capsys
) -> None:
    out = transcode(target_store, tmp_path / "int8.zarr", "--views", 1, codec="int8")
    before = content(out)
    words = (
        "extract-targets", "--images", image_shards, "--out", out, "--teacher",
        f"local-dir:{tiny_clip}", "--codec", "int8",
    )  # fmt: skip
    for more in ((), ("--dry-run",)):
        run_cli(*words, *more, code=1)
        error = capsys.readouterr().err
        assert "transcoded_from is {'name': 'float16'} there and not given here" in error
    assert content(out) == before
    run_cli(*words, "--overwrite")
    run_cli("status", out)  # by the record of the stage that the targets are of now
    assert "single: done, 3 of 3 done at 20" in capsys.readouterr().out


def test_later_stages_take_it_as_any_other(transcoded: Path, capsys) -> None:
    run_cli("status", transcoded)
    said = capsys.readouterr().out
    assert f"{transcoded}: done since 20" in said
    assert "units: 6 done" in said
    assert "transcode: done, 6 of 6 done at 20" in said
    run_cli("verify", transcoded, "--sample", 48)
    said = capsys.readouterr().out
    assert "units: 6, not sound: 0; targets read: 48" in said
    assert "live teacher: 48 targets" in said
    assert "; the codec's own error is taken off above" in said


def test_what_is_damaged_is_named_and_transcoded_again(
    target_store: Path, transcoded: Path, tmp_path: Path, capsys
) -> None:
    out = Path(shutil.copytree(transcoded, tmp_path / "out.zarr"))
    before = content(out)
    (out / "view-01/images-000001/prior/c/0/0").unlink()
    run_cli("verify", out, "--repair", code=1)
    assert "was transcoded; " in capsys.readouterr().err
    run_cli("verify", out, "--sample", 0, code=1)
    error = capsys.readouterr().err
    assert "(view-01/images-000001); delete their marks, those in its folder done, and run" in error
    parts: Any = SimpleNamespace(is_transcoded=True, faults={"unit": ["other"]}, repairable=set())
    assert _Findings._remedy(parts).endswith("or gone: give those with --images")
    pack(out, tmp_path / "packed", code=1)
    mark = out / "done/view-01/images-000001.json"
    assert f"delete {mark} and run transcode again" in capsys.readouterr().err
    mark.unlink()
    transcode(target_store, out)
    assert content(out) == before


def test_targets_that_a_codec_cannot_hold(source: Path, tmp_path: Path, capsys) -> None:
    halves = transcode(source, tmp_path / "bf16.zarr", codec="bfloat16")
    huge = torch.tensor(1e9, dtype=torch.bfloat16).view(torch.int16).item()
    change(halves, "codes", lambda codes: np.full_like(codes, huge))
    transcode(halves, tmp_path / "out.zarr", codec="float16", code=1)
    assert "too large for --codec float16" in capsys.readouterr().err


def test_what_a_teacher_computed_is_not_overwritten(
    source: Path, target_store: Path, tmp_path: Path, capsys
) -> None:
    before = content(source)
    for words in ((), ("--overwrite",)):
        run_cli("transcode", target_store, source, "--codec", "int8", *words, code=2)
        assert "holds targets that a teacher computed" in capsys.readouterr().err
    run_cli("transcode", target_store, source / "small.zarr", "--codec", "int8", code=2)
    assert f"lies in the target store {source}" in capsys.readouterr().err
    zarr.create_group(tmp_path / "group-of-mine")
    run_cli("transcode", target_store, tmp_path / "group-of-mine/small.zarr", "--codec", "int8")
    assert content(source) == before
    (source / "zarr.json").write_text("{}")  # as one of another version is not read, either
    transcode(target_store, source, "--overwrite", codec="int8", code=1)
    assert "is no target store" in capsys.readouterr().err


def test_a_copy_that_cannot_be_read_is_overwritten(target_store: Path, tmp_path: Path) -> None:
    out = transcode(target_store, tmp_path / "out.zarr", codec="int8")
    before = content(out)
    (out / "zarr.json").write_text("{}")
    transcode(target_store, out, codec="int8", code=1)
    transcode(target_store, out, "--overwrite", codec="int8")
    assert content(out) == before


def test_each_object_of_codes_is_read_once(target_store: Path, tmp_path: Path, monkeypatch) -> None:
    """Codes larger than what a unit keeps, with scales that are read, too."""
    store = transcode(target_store, tmp_path / "int8.zarr", codec="int8")
    monkeypatch.setattr("milan_pipeline.targets.transcoding.ROWS_AT_ONCE", 1)
    monkeypatch.setitem(VerifiedObjects.__init__.__kwdefaults__, "kept_bytes", 1)
    with noting("read") as read:
        run_cli("transcode", watched(store), tmp_path / "out.zarr", "--codec", "bfloat16")
    paths = [each.path for each in read if "/codes/c/" in each.path]
    assert len(paths) == len(set(paths)) == 6
