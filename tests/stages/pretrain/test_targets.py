"""What pretrain does with targets: any number and kind, none of another identity, no teacher."""

import shutil
import subprocess
import sys

import pytest

from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import Manifest, load_manifest
from tests.support.cli import run_cli
from tests.support.pictures import write_picture
from tests.support.pretrain import (
    SHORT,
    TINY_STUDENT,
    extract_and_pack,
    log,
    pretrain,
    state,
    weights,
)


def test_targets_of_another_identity_are_refused_by_field(
    whole, image_shards, tiny_clip, tmp_path, capsys
):
    targets = extract_and_pack(image_shards, tiny_clip, tmp_path, "--views", 2, "--codec", "int8")
    before = weights(whole)
    pretrain(image_shards, targets, whole, "--max-steps", 99, code=1)
    error = capsys.readouterr().err
    assert "identity.codec.name is 'float16' there and 'int8' here" in error
    assert len(error.splitlines()) == 1
    assert weights(whole) == before


def test_int8_targets_train(image_shards, tiny_clip, tmp_path):
    targets = extract_and_pack(image_shards, tiny_clip, tmp_path, "--codec", "int8")
    pretrain(image_shards, targets, tmp_path / "run", "--max-steps", 2)
    assert state(tmp_path / "run") == "done"


def test_more_views_than_are_packed_are_refused(shards, target_shards, tmp_path, capsys):
    pretrain(*shards, tmp_path / "run", "--views", 3, code=2)
    assert f"--views 3 is more than the 2 that {target_shards} holds" in capsys.readouterr().err


def test_targets_without_any_shard_are_a_clear_error(image_shards, target_shards, tmp_path, capsys):
    whole = load_manifest(str(target_shards), kind="targets")
    Manifest(kind="targets", folder=str(tmp_path), shards=(), common=whole.common).save()
    pretrain(image_shards, tmp_path, tmp_path / "run", code=2)
    assert "--views" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 10])
def test_default_sizes_train_on_a_few_pictures(count, tiny_clip, tmp_path):
    for number in range(count):
        write_picture(tmp_path / "pictures" / f"{number}.jpg", number)
    run_cli("pack-images", tmp_path / "pictures", tmp_path / "shards")
    targets = extract_and_pack(tmp_path / "shards", tiny_clip, tmp_path)
    more = ("--epochs", 3, "--workers", 2)
    pretrain(tmp_path / "shards", targets, tmp_path / "run", *more, options=TINY_STUDENT)
    assert len(log(tmp_path / "run")) == 3
    assert state(tmp_path / "run") == "done"


# ---- damage, and no teacher


def test_a_damaged_target_is_one_sentence_that_names_the_tar(
    image_shards, target_shards, tmp_path, capfd
):
    shutil.copytree(target_shards, tmp_path / "targets")
    manifest = load_manifest(str(tmp_path / "targets"), kind="targets")
    for shard in manifest.shards:
        path = tmp_path / "targets" / shard.name
        data = bytearray(path.read_bytes())
        data[load_index(manifest, shard)["offset"][0]] ^= 1
        path.write_bytes(data)
    pretrain(image_shards, tmp_path / "targets", tmp_path / "run", "--workers", 2, code=1)
    _few_steps, error = capfd.readouterr().err.splitlines()
    assert error.startswith(f"Error: {tmp_path / 'targets'}/view-00/targets-v00-images-")
    assert "damaged" in error


WITHOUT_TEACHER = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("open_clip", "transformers"):
            raise AssertionError(f"{name} was imported")

def refuse(event, words):
    if event == "open" and str(words[0]).startswith(tuple(read)):
        raise AssertionError(f"{words[0]} was read")

sys.meta_path.insert(0, Refuse())
read = [sys.argv.pop(1), sys.argv.pop(1)]
sys.addaudithook(refuse)
from milan_pipeline.cli.main import main
try:
    main(sys.argv[1:])
finally:
    assert "open_clip" not in sys.modules
    assert "milan_pipeline.teacher.teacher" not in sys.modules
"""


@pytest.mark.slow
def test_no_teacher_is_loaded_or_read(whole, shards, tiny_clip, target_store, tmp_path):
    places = zip(("--images", "--targets", "--out"), (*shards, tmp_path / "run"), strict=True)
    words = (tiny_clip, target_store, "pretrain", *(word for each in places for word in each))
    command = [sys.executable, "-c", WITHOUT_TEACHER, *words, *TINY_STUDENT, *SHORT]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    assert weights(tmp_path / "run") == weights(whole)
