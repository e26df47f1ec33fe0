"""The documentation's commands on things that are small: a tiny CLIP, students, pictures, recipes.

Nothing but names and sizes is replaced, so that what runs is what is written.
"""

import re
import shlex
import shutil
from pathlib import Path

import webdataset as wds
from PIL import Image
from torch.distributed.run import get_args_parser

from tests.support.cli import run_cli

SMALL_STUDENT = (
    "vit_tiny_patch16_224 --patch-size 8 --width 32 --depth 1 --heads 2 --decoder-width 32 "
    "--decoder-depth 1 --decoder-heads 2 --max-steps 2 --workers 0"
)
SHORT = {
    "import-checkpoint": "--heads 2 --decoder-heads 2",  # which no checkpoint tells
    "probe": "--linear-epochs 2 --linear-warmup-epochs 1 --sweep-steps 2",
    "finetune": "--max-steps 2 --workers 0",
    "segment": "--max-steps 2 --workers 0 --image-size 32 --channels 8",
}
SMALL_RECIPE = """
extract-targets: {{teacher: "local-dir:{clip}", views: 2, precision: fp32}}
pretrain:
  {{student: vit_tiny_patch16_224, patch-size: 8, width: 32, depth: 1, heads: 2, decoder-width: 32,
    decoder-depth: 1, decoder-heads: 2, max-steps: 2, workers: 0}}
finetune: {{max-steps: 2, workers: 0}}
probe: {{linear: [logistic]}}
"""
RECIPES = ("imagenet1k-vit-b16", "own-images-1gpu")
# The demo's own recipe trains as it stands, but on few pictures and for two steps.
DEMO_TRAINING = "--batch-size 8 --max-steps 2 --workers 0"
TEACHER = re.compile(r"--teacher ViT-B-16 --pretrained openai")
STUDENT = re.compile(r"vit_(tiny|small|base)_patch16_224(?: --decoder-\w+ \d+)*")


def stand_in(command: str, tiny_clip: Path) -> list[str]:
    """Return a command's words with the real teacher, students and recipes replaced by tiny ones.

    What only plans or submits is left as it is: it takes names alone.
    """
    stage = re.search(r"(?:milan-pipeline|-m milan_pipeline) (\S+)", command)
    if stage is not None and "--dry-run" not in command and "--samples " not in command:
        trains = "--dense" not in command  # nothing then takes epochs
        command = f"{command} {SHORT.get(stage[1], '') if trains else ''}"
        command = TEACHER.sub(f"--teacher local-dir:{tiny_clip}", command)
        command = command.replace("open_clip:ViT-B-16/openai", f"open_clip:local-dir:{tiny_clip}")
        command = STUDENT.sub(SMALL_STUDENT, command)
        if stage[1] == "pretrain" and "--config demo" in command:
            command = f"{command} {DEMO_TRAINING}"
        if "--config finetune-few-labels" in command:
            command = f"{command} --batch-size 4"  # there are fewer pictures than the recipe's 32
        for recipe in RECIPES:
            command = command.replace(f"--config {recipe}", "--config small.yaml")
    return shlex.split(command, comments=True)


def run_command(command: str, tiny_clip: Path) -> None:
    """Run a command of the documentation in this process, on stand-ins."""
    words = stand_in(command, tiny_clip)
    if words[0] == "torchrun":
        words = what_torchrun_runs(words)
    assert words[0] == "milan-pipeline", f"{command!r} is none that this can run; mark its block"
    run_cli(*words[1:])


def what_torchrun_runs(words: list[str]) -> list[str]:
    """Let torchrun's own parser read its words; return what it would start, as one process.

    Its parser takes the module for the script, and leaves what follows to the script.
    tests/end_to_end/test_torchrun.py starts several.
    """
    launch = get_args_parser().parse_args(words[1:])
    assert (launch.module, launch.training_script) == (True, "milan_pipeline")
    return ["milan-pipeline", *launch.training_script_args]


def write_world(folder: Path, pictures: Path, tiny_clip: Path) -> None:
    """Write what the pages take for given: photographs, tars, ADE20K, a recipe, a checkout."""
    (folder / "workflows").symlink_to(Path(__file__).parents[2] / "workflows")
    for name in ("photos", "photos-held-out", "ILSVRC2012/train", "ILSVRC2012/val"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(pictures)
    (folder / "small.yaml").write_text(SMALL_RECIPE.format(clip=tiny_clip), encoding="utf-8")
    (folder / "tars").mkdir()
    for number in range(4):
        with wds.TarWriter(str(folder / f"tars/train-{number:04d}.tar")) as tar:
            tar.write({"__key__": f"{number}", "jpg": (pictures / "ant/000.jpg").read_bytes()})
    write_ade20k(folder / "ADE20K", pictures)


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
