"""extract-targets: what is done, what is left, what is refused."""

import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.layout import read_identity
from tests.support.cli import extract_targets, run_cli
from tests.support.clip import write_tiny_clip
from tests.support.disturbances import no_targets, run_and_kill, stopped_at_put
from tests.support.pictures import pack_torn, write_picture
from tests.support.processes import files_without
from tests.support.remote import watched
from tests.support.stores import files_and_times

Extract = Callable[..., Path]


@pytest.fixture
def extract(image_shards: Path, tiny_clip: Path, tmp_path: Path) -> Extract:
    """Run the stage with defaults; later words win."""

    def run(*words: object, images: Path = image_shards, code: int = 0) -> Path:
        out = tmp_path / "targets.zarr"
        extract_targets(images, tiny_clip, out, "--batch-size", 4, *words, code=code)
        return out

    return run


def marks(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store / "done")) for path in store.glob("done/*/*.json"))


def mark(store: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((store / "done" / name).read_text())
    return found


def test_the_store_says_what_it_is(extract: Extract, image_shards: Path) -> None:
    out = extract("--views", 2)
    identity = read_identity(str(out))
    assert identity["view_policy"] == {
        "name": "random-resized-crop", "seed": 0, "scale": [0.2, 1.0],
    }  # fmt: skip
    assert identity["codec"] == {"name": "float16"}
    assert identity["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    record = json.loads((out / "extract-targets.json").read_text())
    assert record["state"] == "done"
    assert record["counts"]["targets"] == 48
    assert record["counts"]["skipped"] == 0
    assert record["extent"]["images_manifest_sha256"] == (
        load_manifest(str(image_shards), kind="images").sha256
    )
    assert record["config"]["batch_size"] == 4


class Terminal(io.StringIO):
    """What a terminal is sent."""

    def isatty(self) -> bool:
        return True


def test_a_second_run_has_nothing_to_do(extract: Extract, capsys) -> None:
    before = files_and_times(extract())
    assert "3 units, 3 units done now, 24 targets, 0 skipped" in capsys.readouterr().out
    # Execution parameters are free.
    assert files_and_times(extract("--workers", 0, "--batch-size", 24)) == before
    assert "nothing to do, 3 units are done" in capsys.readouterr().out


def test_more_views_extend(extract: Extract, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_and_times(extract())
    capsys.readouterr()
    extract("--views", 2, "--dry-run")
    output = capsys.readouterr().out
    assert "units to do: 3, done: 3" in output
    assert "view-01: 3 not done yet" in output
    assert "images to run through the teacher: 24" in output
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    after = files_and_times(extract("--views", 2))
    assert "extract-targets, 3 of 3 units: 100%" in terminal.getvalue()
    assert {path: after[path] for path in before} == before
    assert len(marks(extract("--views", 2))) == 6
    assert files_and_times(extract("--views", 1)) == after  # fewer leave the others


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--view-seed", 1], "view_policy.seed is 0 there and 1 here"),
        (["--min-scale", 0.5], "view_policy.scale is [0.2, 1.0] there and [0.5, 1.0] here"),
        (["--view-policy", "center"], "view_policy.name is 'random-resized-crop' there"),
        (["--codec", "int8"], "codec.name is 'float16' there and 'int8' here"),
        (["--precision", "fp16"], "there and 'fp16' here"),
        (["--layers", 2], "teacher.layers is 1 there and 2 here"),
        (["--space", "hidden"], "teacher.space is 'projected' there and 'hidden' here"),
        (["--prior", "rollout"], "teacher.prior is 'cls' there and 'rollout' here"),
        (["--grid", 3], "teacher.grid is [4, 4] there and [3, 3] here"),
        (["--teacher-norm", "imagenet"], "preprocessing.mean is [0.5, 0.4, 0.3] there"),
    ],
)
def test_other_content_is_refused_by_name(
    extract: Extract, capsys, words: list[object], named: str
) -> None:
    before = files_and_times(extract())
    for more in ((), ("--dry-run",)):
        extract(*words, *more, code=1)
        error = capsys.readouterr().err
        assert named in error
        assert "give another --out" in error
        assert error.count("\n") == 1
    assert files_and_times(extract()) == before


def test_another_teacher_is_refused_or_replaces(extract: Extract, tmp_path: Path, capsys) -> None:
    out = extract()
    other = write_tiny_clip(tmp_path / "other", seed=1)
    extract("--teacher", f"local-dir:{other}", code=1)
    assert "teacher.weights_sha256 is " in capsys.readouterr().err
    before = mark(out, "view-00/images-000000.json")
    extract("--teacher", f"local-dir:{other}", "--overwrite")
    after = mark(out, "view-00/images-000000.json")
    assert after["identity_hash"] != before["identity_hash"]
    assert after["objects"]["box/c/0/0"] == before["objects"]["box/c/0/0"]
    assert after["objects"]["codes/c/0/0/0"] != before["objects"]["codes/c/0/0/0"]
    extract(code=1)


def test_dry_run_of_an_overwrite_counts_everything(extract: Extract, capsys) -> None:
    extract()
    capsys.readouterr()
    extract("--view-seed", 1, "--overwrite", "--dry-run")
    output = capsys.readouterr().out
    assert "units to do: 3, done: 0" in output
    for number in range(3):
        reason = "it was extracted with other parameters"
        assert f"view-00/images-00000{number}: {reason}\n" in output


def test_dry_run_of_nothing(extract: Extract, capsys) -> None:
    out = extract("--dry-run")
    output = capsys.readouterr().out
    assert "units to do: 3, done: 0" in output
    assert "images to run through the teacher: 24" in output
    assert "bytes to write: about " in output
    assert not out.exists()


def test_a_changed_shard_is_done_again(
    extract: Extract, pictures: Path, tmp_path: Path, capsys
) -> None:
    source, shards = tmp_path / "in", tmp_path / "shards"
    shutil.copytree(pictures, source)
    pack = ("pack-images", source, shards, "--samples-per-shard", 10, "--no-shuffle")
    run_cli(*pack)
    before = files_and_times(extract("--views", 2, images=shards))
    write_picture(source / "ant" / "003.jpg", 99)
    run_cli(*pack, "--overwrite")
    capsys.readouterr()
    extract("--views", 2, "--dry-run", images=shards)
    output = capsys.readouterr().out
    assert "units to do: 2, done: 4" in output
    for view in range(2):
        assert f"  view-0{view}/images-000000: its image shard has changed\n" in output
    assert "not done yet" not in output
    after = files_and_times(extract("--views", 2, images=shards))
    changed = {path for path in after if after[path][0] != before[path][0]}
    rewritten = {path for path in after if after[path][1] != before[path][1]}
    units = {"view-00/images-000000", "view-01/images-000000"}
    assert {"/".join(path.removeprefix("done/").split("/")[:2]) for path in changed} == {
        *units, *(f"{unit}.json" for unit in units),
    }  # fmt: skip
    # Equal bytes may be put again, but only in these units, their marks and their view's group.
    assert all("images-000000" in path or path.count("/") == 1 for path in rewritten)


def test_an_interrupted_run_goes_on(extract: Extract, target_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "targets.zarr"
    with stopped_at_put("done/view-00/images-000000.json", "SIGUSR1"):
        extract("--views", 2, "--out", watched(out), code=75)
    assert marks(out) == ["view-00/images-000000.json"]
    assert json.loads((out / "extract-targets.json").read_text())["state"] == "running"
    first = files_and_times(out)
    after = files_and_times(extract("--views", 2))
    finished = [path for path in first if "images-000000" in path]
    assert finished
    assert {path: after[path] for path in finished} == {path: first[path] for path in finished}
    undisturbed = {path: data for path, (data, _) in files_and_times(target_store).items()}
    assert {path: data for path, (data, _) in after.items()} == undisturbed


@pytest.fixture
def bad_shards(tmp_path: Path) -> Path:
    """Two shards of 10 images, 2 of which end early, in the second shard."""
    return pack_torn(tmp_path, 20, (13, 17))


def test_bad_images_are_in_the_ledger(extract: Extract, bad_shards: Path, capsys) -> None:
    out = extract("--max-bad-fraction", 0.1, images=bad_shards)
    assert "18 targets, 2 skipped" in capsys.readouterr().out
    skipped = mark(out, "view-00/images-000001.json")["skipped"]
    assert [row["key"] for row in skipped] == ["13", "17"]
    assert all("cannot be decoded" in row["reason"] for row in skipped)


def test_too_many_bad_images_fail_but_finished_units_stay(
    extract: Extract, bad_shards: Path, capsys
) -> None:
    for _ in range(2):
        out = extract(images=bad_shards, code=1)
        error = capsys.readouterr().err
        assert "2 of 20 images are unreadable, more than --max-bad-fraction 0.01" in error
        assert "images-000001.tar:13 (" in error
        assert "images-000001.tar:17 (" in error
        assert marks(out) == ["view-00/images-000000.json", "view-00/images-000001.json"]
    before = files_and_times(out)
    assert files_and_times(extract("--max-bad-fraction", 0.1, images=bad_shards)) == before


@pytest.mark.parametrize(
    "words",
    [
        ("--views", 0),
        ("--view-policy", "center", "--views", 2),
        ("--batch-size", 0),
        ("--workers", -1),
        ("--max-bad-fraction", 2),
        ("--min-scale", 0),
        ("--codec", "pq"),
        ("--view-policy", "none"),
    ],
)
def test_wrong_values_are_wrong_usage(extract: Extract, words: tuple[object, ...]) -> None:
    assert not extract(*words, code=2).exists()


def test_an_interrupted_overwrite_can_be_taken_back(extract: Extract) -> None:
    before = {path: data for path, (data, _) in files_and_times(extract("--views", 2)).items()}
    with no_targets(InterruptedRunError("stopped")):
        extract("--views", 2, "--view-seed", 7, "--overwrite", code=75)
    out = extract("--views", 2, "--overwrite")
    assert {path: data for path, (data, _) in files_and_times(out).items()} == before
    assert json.loads((out / "extract-targets.json").read_text())["state"] == "done"
    extract("--views", 2)


def test_other_images_under_the_same_names_are_refused(
    extract: Extract, tmp_path: Path, capsys
) -> None:
    before = files_and_times(extract())
    write_picture(tmp_path / "other/a.jpg", 99)
    run_cli("pack-images", tmp_path / "other", tmp_path / "other-shards")
    for more in ((), ("--dry-run",)):
        extract(*more, images=tmp_path / "other-shards", code=1)
        error = capsys.readouterr().err
        assert "holds targets of other images: images-000000.tar" in error
        assert "--overwrite" in error
    assert files_and_times(tmp_path / "targets.zarr") == before
    extract("--overwrite", images=tmp_path / "other-shards")


def test_images_without_a_manifest(extract: Extract, tmp_path: Path, capsys) -> None:
    for more in ((), ("--dry-run",)):
        extract(*more, images=tmp_path, code=1)
        assert "`milan-pipeline index` one for tars that are there" in capsys.readouterr().err


def test_an_unfinished_manifest_is_refused(
    extract: Extract, image_shards: Path, tmp_path: Path, capsys
) -> None:
    manifest = load_manifest(str(image_shards), kind="images")
    dataclasses.replace(manifest, folder=str(tmp_path / "part"), complete=False).save()
    extract(images=tmp_path / "part", code=1)
    assert "is not complete" in capsys.readouterr().err


def test_an_unknown_teacher(extract: Extract, tmp_path: Path, capsys) -> None:
    for more in ((), ("--dry-run",)):
        extract("--teacher", f"local-dir:{tmp_path}/nowhere", *more, code=2)
        error = capsys.readouterr().err
        assert error.startswith("Error: --teacher 'local-dir:")
        assert error.count("\n") == 1


def test_killed_at_any_write_it_ends_with_the_same_bytes(
    image_shards: Path, tiny_clip: Path, target_store: Path, tmp_path: Path
) -> None:
    words = (
        "extract-targets", "--images", image_shards, "--teacher", f"local-dir:{tiny_clip}",
        "--batch-size", 4, "--views", 2,
    )  # fmt: skip
    undisturbed = files_without(target_store, "extract-targets.json")
    for writes in range(0, len(undisturbed), len(undisturbed) // 3):
        out = tmp_path / f"{writes}.zarr"
        assert run_and_kill(writes, *words, "--out", watched(out))
        run_cli(*words, "--out", out)
        assert files_without(out, "extract-targets.json") == undisturbed


def test_a_dry_run_misses_weights_that_are_not_there(
    image_shards: Path, tmp_path: Path, capsys
) -> None:
    clip = write_tiny_clip(tmp_path / "clip")
    for path in clip.glob("*.safetensors"):
        path.unlink()
    extract_targets(image_shards, clip, tmp_path / "t.zarr", "--dry-run", code=2)
    assert "has no weights beside its configuration" in capsys.readouterr().err
