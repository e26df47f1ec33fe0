"""docs/rerunning.md: one stage again, on cached inputs; its commands run as they stand."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.stand_ins import stand_in
from tests.support.cli import run_cli

DOCUMENT = Path(__file__).parents[2] / "docs" / "rerunning.md"
# A machine without a teacher: to import open_clip is an error.
WITHOUT_OPEN_CLIP = """
import json, sys
sys.modules["open_clip"] = None
from milan_pipeline.cli.main import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code, words
"""


def stories(clip: Path) -> list[list[list[str]]]:
    """The words of each story's commands, on stand-ins that train in seconds."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text("utf-8"), flags=re.DOTALL)
    return [
        [_words(command, clip) for command in block.replace("\\\n", " ").splitlines()]
        for block in blocks
    ]


def _words(command: str, clip: Path) -> list[str]:
    more = " --workers 0" if " pretrain " in command else ""
    small = command.replace("vit_small_patch16_224", "vit_base_patch16_224")
    return stand_in(small + more, clip)[1:]


@pytest.fixture
def finished(
    tiny_clip: Path, image_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with images, a finished store of four views and its shards; the teacher beside."""
    monkeypatch.chdir(tmp_path)
    clip = tmp_path / "clip"
    shutil.copytree(tiny_clip, clip)
    shutil.copytree(image_shards, tmp_path / "data" / "images")
    extract, pack, _ = stories(clip)[0]
    run_cli(*extract[:-1], 4)
    run_cli(*pack)
    return clip


def bytes_of(folder: str, pattern: str) -> dict[Path, tuple[int, bytes]]:
    paths = [path for path in Path(folder).glob(pattern) if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_one_more_view_costs_one_view(finished: Path) -> None:
    extract, pack, pretrain = stories(finished)[0]
    assert extract[-2:] == ["--views", "5"]
    stored = bytes_of("data/targets.zarr", "view-*/*/**/*")
    packed = bytes_of("data/target-shards", "view-*/*")
    for command in (extract, pack, pretrain):
        run_cli(*command)
    counts = json.loads(Path("data/targets.zarr/extract-targets.json").read_text())["counts"]
    assert (counts["units"], counts["units_done_now"]) == (15, 3)
    assert stored.items() <= bytes_of("data/targets.zarr", "view-*/*/**/*").items()
    assert packed.items() <= bytes_of("data/target-shards", "view-*/*").items()
    assert json.loads(Path("runs/five-views/config.json").read_text())["config"]["views"] == 5


@pytest.mark.slow
def test_a_second_student_needs_no_teacher(finished: Path) -> None:
    commands = stories(finished)[1]
    shutil.rmtree(finished)
    script = [sys.executable, "-c", WITHOUT_OPEN_CLIP, json.dumps(commands)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("runs/small/encoder.safetensors").exists()
