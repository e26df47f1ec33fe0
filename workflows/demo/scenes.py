"""Write the demo's captioned scenes: python -m workflows.demo.scenes OUT --train 8000 --test 2400.

OUT/{train,test}/<class>/<name>.jpg, OUT/masks/{train,test}/<class>/<name>.png, OUT/captions.jsonl
and OUT/scenes.json, which has the options and says whether the folder is finished.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from workflows.demo.compose import SIZE, SPLITS, Split, encode_jpeg, scene
from workflows.demo.shapes import CLASSES

VERSION = 1
"""Raised whenever the same seed would draw something else."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options on which a folder of scenes depends."""

    seed: int
    train: int
    test: int
    size: int = SIZE
    classes: tuple[str, ...] = CLASSES
    version: int = VERSION

    def jobs(self) -> Iterator[tuple[Split, int]]:
        """Every (split, index) in the order of captions.jsonl."""
        for split in SPLITS:
            yield from ((split, index) for index in range(getattr(self, split)))


def write_scene(job: tuple[Split, int], out: Path, seed: int) -> dict[str, str]:
    """Draw one scene into its two files and return its line for captions.jsonl."""
    split, index = job
    drawn = scene(seed, split, index)
    name = CLASSES[drawn.label]
    file = Path(split, name, f"{name}-{index:06d}.jpg")
    (out / file).write_bytes(encode_jpeg(drawn.pixels))
    Image.fromarray(drawn.mask).save(out / "masks" / file.with_suffix(".png"))
    return {"split": split, "file": file.as_posix(), "class": name, "caption": drawn.caption}


def is_finished(out: Path, recipe: Recipe) -> bool:
    """Whether the folder has this recipe's scenes; refuses a folder with other files."""
    if not out.exists() or not any(out.iterdir()):
        return False
    mark = out / "scenes.json"
    if not mark.is_file():
        raise FileExistsError(f"{out} is not empty and not a folder of scenes: choose another")
    found = json.loads(mark.read_text(encoding="utf-8"))
    finished = bool(found.pop("finished"))
    wanted = json.loads(json.dumps(asdict(recipe)))
    differing = [f"{key} {found.get(key)} -> {wanted[key]}" for key in wanted
                 if found.get(key) != wanted[key]]  # fmt: skip
    if differing:
        raise FileExistsError(f"{out} holds other scenes ({', '.join(differing)}): choose another")
    return finished


def _mark(out: Path, recipe: Recipe, *, finished: bool) -> None:
    text = json.dumps({**asdict(recipe), "finished": finished}, indent=1) + "\n"
    part = out / "scenes.json.part"
    part.write_text(text, encoding="utf-8")
    part.replace(out / "scenes.json")


def generate(out: Path, recipe: Recipe, workers: int) -> bool:
    """Write all scenes unless that is done; returns whether anything was written."""
    if is_finished(out, recipe):
        return False
    out.mkdir(parents=True, exist_ok=True)
    _mark(out, recipe, finished=False)
    for name in CLASSES:
        for split in SPLITS:
            (out / split / name).mkdir(parents=True, exist_ok=True)
            (out / "masks" / split / name).mkdir(parents=True, exist_ok=True)
    jobs = list(recipe.jobs())
    one = partial(write_scene, out=out, seed=recipe.seed)
    with (
        (out / "captions.jsonl").open("w", encoding="utf-8") as captions,
        multiprocessing.get_context("spawn").Pool(workers) as processes,
    ):
        rows = processes.imap(one, jobs, chunksize=64)
        for row in tqdm(rows, "scenes", len(jobs), disable=None):
            captions.write(json.dumps(row) + "\n")
    _mark(out, recipe, finished=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the demo's captioned scenes.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=8000, help="training scenes")
    parser.add_argument("--test", type=int, default=2400, help="test scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    recipe = Recipe(seed=options.seed, train=options.train, test=options.test)
    try:
        written = generate(options.out, recipe, options.workers)
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    count = recipe.train + recipe.test
    print(f"{count} scenes in {options.out}" if written else f"{options.out}: nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
