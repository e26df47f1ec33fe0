"""Every command of the README runs, with stand-ins for what cannot be downloaded here."""

import dataclasses
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import webdataset as wds
from PIL import Image
from torch.distributed.run import get_args_parser

from milan_pipeline.pretraining_choices import MILANS
from stages.pretrain import Pretrain
from tests.conftest import run_cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STAGES = tuple(PROJECT["entry-points"]["milan_pipeline.stages"])
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
SHORT = {
    "import-checkpoint": " --heads 2 --decoder-heads 2",  # which no checkpoint tells
    "probe": " --linear-epochs 2 --linear-warmup-epochs 1 --sweep-steps 2",
    "finetune": " --max-steps 2 --workers 0",
    "segment": " --max-steps 2 --workers 0 --image-size 32 --channels 8",
}


def stand_in(command: str, tiny_clip: Path) -> list[str]:
    """Replace the real teacher by a tiny one and the ViT-B by a small ViT; nothing else."""
    command += next((more for stage, more in SHORT.items() if f"pipeline {stage} " in command), "")
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
    write_ade20k(tmp_path / "ADE20K", pictures)
    stages = [command for command in COMMANDS if command.startswith("milan-pipeline ")]
    assert len(stages) == 24
    for command in stages:
        run_cli(*stand_in(command, tiny_clip)[1:])
    assert (tmp_path / "runs/first/encoder.safetensors").exists()
    assert (tmp_path / "runs/first/probe/scores.json").exists()
    assert (tmp_path / "runs/second/encoder.safetensors").exists()
    assert (tmp_path / "tars/manifest.json").exists()
    for command in (command for command in COMMANDS if command.startswith("torchrun ")):
        run_as_one_process(stand_in(command, tiny_clip))
    assert (tmp_path / "runs/wide/encoder.safetensors").exists()


def write_ade20k(root: Path, pictures: Path) -> None:
    """Write a tiny tree of ADE20K's layout: three pictures and masks a split."""
    for split in ("training", "validation"):
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations" / split).mkdir(parents=True)
        for number, picture in enumerate(sorted(pictures.rglob("*.jpg"))[:3]):
            shutil.copy(picture, root / "images" / split / f"{number}.jpg")
            with Image.open(picture) as image:
                mask = Image.new("L", image.size, color=150)
            mask.paste(number, (0, 0, 5, 5))
            mask.save(root / "annotations" / split / f"{number}.png")


def run_as_one_process(words: list[str]) -> None:
    """Let torchrun's own parser read its words, and run what it would; test_torchrun.py starts it.

    Its parser takes the module for the script, and leaves what follows to the script.
    """
    launch = get_args_parser().parse_args(words[1:])
    assert (launch.module, launch.training_script) == (True, "milan_pipeline.cli")
    run_cli(*launch.training_script_args)


def test_every_other_command_is_a_make_target() -> None:
    """`make test` is run by .ci/run, the demo's script by tests/workflows/test_demo.py."""
    tested = ("milan-pipeline ", "torchrun ")
    others = [command for command in COMMANDS if not command.startswith(tested)]
    assert [shlex.split(command, comments=True) for command in others] == [
        ["make", "demo"],
        ["make", "test"],
        ["make", "study"],
    ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test", "study"} <= targets


def test_every_option_named_in_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = get_args_parser().format_help()
    for stage in STAGES:
        run_cli(stage, "--help")
        known += capsys.readouterr().out
    named = set(re.findall(r"--[a-z][a-z-]+", README))
    assert named
    assert [option for option in sorted(named) if option not in known] == []


def test_every_stage_benchmark_and_choice_is_in_the_readme() -> None:
    rows = set(re.findall(r"^\| `([\w-]+)` \|", README, flags=re.MULTILINE))
    assert rows >= set(STAGES)
    sources = {path.stem: path.read_text("utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    assert rows >= {name for name, source in sources.items() if "__main__" in source}
    options = {field.name: field for field in dataclasses.fields(Pretrain)}
    for name in ("loss", "target_norm", "supervise", "masking", "decoder"):
        row = re.search(rf"^\| `--{name.replace('_', '-')}` \|(.*)$", README, flags=re.MULTILINE)
        assert row is not None
        default, *others = re.findall(r"`([\w-]+)`", row[1])
        assert default == MILANS[name]
        assert {default, *others} == set(options[name].metadata["choices"])
    extras = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert extras
    assert extras <= PROJECT["optional-dependencies"].keys()
