"""pack-images of tables: the same images give the same shards in whatever form they come."""

import json

import pyarrow.parquet as pq
import pytest

from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from tests.support.cli import run_cli
from tests.support.tables import FORMS, hub_table, rows_of, write_img2dataset, write_saved

EACH = ("--samples-per-shard", 10, "--workers", 0)


def ledger(folder):
    manifest = load_manifest(str(folder), kind="images")
    skipped = [row for shard in manifest.shards for row in shard.details["skipped"]]
    return skipped, manifest.common["ignored"]


def members(folder):
    manifest = load_manifest(str(folder), kind="images")
    return {s.key: s.members for shard in manifest.shards for s in iterate_shard(manifest, shard)}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_gives_the_shards_of_the_class_tree(form, pictures, image_shards, tmp_path):
    source = FORMS[form](pictures, tmp_path / "in")
    words: tuple[object, ...] = ()
    if form in ("csv", "parquet"):
        words = ("--image-folder", pictures)
    run_cli("pack-images", source, tmp_path / "out", *EACH, *words)
    made = load_manifest(str(tmp_path / "out"), kind="images")
    tree = load_manifest(str(image_shards), kind="images")
    assert [shard.sha256 for shard in made.shards] == [shard.sha256 for shard in tree.shards]
    assert made.common["classes"] == ["ant", "bee", "cat"]
    assert ledger(tmp_path / "out") == ([], [])


def test_a_table_is_extracted_and_probed_with_its_class_names(
    pictures, tiny_clip, tmp_path, capsys
):
    shards, out = tmp_path / "shards", tmp_path / "probe"
    run_cli("pack-images", write_saved(pictures, tmp_path / "in"), shards, *EACH)
    run_cli(
        "extract-targets", "--images", shards, "--out", tmp_path / "targets.zarr",
        "--teacher", f"local-dir:{tiny_clip}", "--batch-size", 4,
    )  # fmt: skip
    words = ("--train", shards, "--val", shards, "--out", out, "--device", "cpu")
    run_cli("probe", "--encoder", "pixels:8", *words)
    assert json.loads((out / "scores.json").read_text())["class_names"] == ["ant", "bee", "cat"]


def test_img2dataset_brings_captions_and_names_failed_downloads(pictures, tmp_path):
    paths, _ = rows_of(pictures)
    images = [((pictures / path).read_bytes(), f"Number {n}") for n, path in enumerate(paths[:5])]
    found = []
    for form in ("webdataset", "files"):
        source = write_img2dataset(images, tmp_path / form, form=form)
        run_cli("pack-images", source, tmp_path / f"{form}-out", *EACH)
        found.append(load_manifest(str(tmp_path / f"{form}-out"), kind="images").shards[0].sha256)
    assert found[0] == found[1]
    packed = members(tmp_path / "files-out")
    assert packed["00001/000010001"] == {"jpg": images[3][0], "txt": b"Number 3"}
    skipped, ignored = ledger(tmp_path / "files-out")
    assert not skipped
    assert [row["file"] for row in ignored] == [f"0000{n}/0000{n}000{2 - n // 2}" for n in range(3)]
    assert {row["reason"] for row in ignored} == {"not downloaded (HTTP Error 404)"}


def test_bad_rows_are_in_the_ledger_with_their_numbers(pictures, tmp_path, capsys):
    paths, _ = rows_of(pictures)
    (tmp_path / "text.jpg").write_text("<html>")
    lines = ["image,class,caption", *(f'{pictures / p},dog,"A\ndog"' for p in paths[:2])]
    lines += ["gone.jpg,dog,", ",dog,", f"{pictures / paths[0]},dog,", "text.jpg,dog,", "a,b"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    run_cli("pack-images", tmp_path / "list.csv", tmp_path / "out", *EACH)
    reasons = sorted(row["reason"] for row in ledger(tmp_path / "out")[0])
    assert [reason[:32] for reason in reasons] == [
        "line 10: it is a row of 2 fields",
        "line 6: it is a path without a f",
        "line 7: it is a row without an i",
        "line 8: it is an image that line",
        "line 9: the image file is a web ",
    ]
    assert {sample["txt"] for sample in members(tmp_path / "out").values()} == {b"A\ndog"}


def test_other_columns_of_the_same_table_give_other_shards(pictures, tmp_path, capsys):
    paths, _ = rows_of(pictures)
    lines = ["path,label,colour,text", *(f"{pictures / p},a,red,One" for p in paths[:3])]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    run_cli("pack-images", tmp_path / "list.csv", tmp_path / "out", *EACH)
    assert (
        "images of the column path, classes of label, captions of text" in capsys.readouterr().err
    )
    words = ("--label-column", "colour", "--caption-column", "none")
    run_cli("pack-images", tmp_path / "list.csv", tmp_path / "out", *EACH, *words, code=1)
    assert "files is" in capsys.readouterr().err
    run_cli("pack-images", tmp_path / "list.csv", tmp_path / "out", *EACH, *words, "--overwrite")
    assert load_manifest(str(tmp_path / "out"), kind="images").common["classes"] == ["red"]
    assert not any("txt" in sample for sample in members(tmp_path / "out").values())


def test_parquet_rows_may_name_files_in_place_of_bytes(pictures, tmp_path):
    """As `Dataset.to_parquet` writes images that were never decoded."""
    path = rows_of(pictures)[0][0]
    (tmp_path / "hub").mkdir()
    cells = [{"bytes": None, "path": str(pictures / path)}, {"bytes": None, "path": "gone.jpg"}]
    pq.write_table(hub_table(cells, [0, 0], ["ant"]), tmp_path / "hub" / "train.parquet")
    words = ("--image-folder", pictures)
    run_cli("pack-images", tmp_path / "hub", tmp_path / "out", *EACH, *words)
    assert [s["jpg"] for s in members(tmp_path / "out").values()] == [
        (pictures / path).read_bytes()
    ]
    assert ledger(tmp_path / "out")[0][0]["reason"] == "row 1: it is a row without an image"
