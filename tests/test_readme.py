"""Every command of the README runs, with stand-ins for what cannot be downloaded here."""

import re
import shlex
from pathlib import Path

import pytest
import webdataset as wds

from tests.conftest import run_cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
SMALL_STUDENT = (
    "vit_tiny_patch16_224 --patch-size 8 --width 32 --depth 1 --heads 2 --decoder-width 32 "
    "--decoder-depth 1 --decoder-heads 2 --max-steps 2"
)


def stand_in(command: str, tiny_clip: Path) -> list[str]:
    """Replace the real teacher by a tiny one and the ViT-B by a small ViT; nothing else."""
    command = command.replace(
        "--teacher ViT-B-16 --pretrained openai", f"--teacher local-dir:{tiny_clip}"
    )
    command = command.replace("vit_base_patch16_224", SMALL_STUDENT)
    return shlex.split(command, comments=True)


def test_every_stage_command_runs_in_the_order_of_the_readme(
    tiny_clip: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(pictures)
    (tmp_path / "tars").mkdir()
    for number in range(4):
        with wds.TarWriter(f"tars/train-{number:04d}.tar") as tar:
            tar.write({"__key__": f"{number}", "jpg": (pictures / "ant/000.jpg").read_bytes()})
    stages = [command for command in COMMANDS if command.startswith("milan-pipeline ")]
    assert len(stages) == 6
    for command in stages:
        run_cli(*stand_in(command, tiny_clip)[1:])
    assert (tmp_path / "runs/first/encoder.safetensors").exists()
    assert (tmp_path / "runs/first/probe/scores.json").exists()
    assert (tmp_path / "tars/manifest.json").exists()


def test_every_other_command_is_a_make_target_or_the_parity_check() -> None:
    """`make test` is run by .ci/run, the demo's script by tests/workflows/test_demo.py."""
    others = [command for command in COMMANDS if not command.startswith("milan-pipeline ")]
    assert [shlex.split(command, comments=True) for command in others] == [
        ["make", "demo"],
        ["make", "test"],
    ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


def test_every_option_named_in_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = ""
    for stage in ("pack-images", "index", "extract-targets", "pack-targets", "pretrain", "probe"):
        run_cli(stage, "--help")
        known += capsys.readouterr().out
    named = set(re.findall(r"--[a-z][a-z-]+", README))
    assert named
    assert [option for option in sorted(named) if option not in known] == []
