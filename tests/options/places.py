"""Input of the runs, each made when the first run asks for it."""

import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip
from tests.support.labelled import spoil, write_coloured
from tests.support.pictures import write_ade_tree, write_photos, write_picture
from tests.support.pretrain import TINY_STUDENT, pretrain
from tests.support.students import official_weights

Builder = Callable[["Places", Path], Any]
"""Builds at a path; returns where the place is if it is not that."""
BUILDERS: dict[str, Builder] = {}


class Places(dict[str, Any]):
    """Paths by name; a name that ends in `_moved` is a copy of the one before that.

    Args:
        folder: to build in.
        known: what is there already.
        builders: of more places, beside this module's.
    """

    def __init__(self, folder: Path, known: Mapping[str, Any], **builders: Builder) -> None:
        super().__init__(known)
        self._folder, self._builders = folder, BUILDERS | builders

    def __missing__(self, name: str) -> Path:
        self._folder.mkdir(exist_ok=True)
        place = self._folder / name
        if name.endswith("_moved"):
            origin = self[name.removesuffix("_moved")]
            place = self._folder / name / origin.name
            place.parent.mkdir()
            (shutil.copytree if origin.is_dir() else shutil.copy)(origin, place)
        else:
            place = self._builders[name](self, place) or place
        self[name] = place
        return place


def place(build: Builder) -> Builder:
    """Have a place built by the function of its name."""
    BUILDERS[build.__name__] = build
    return build


def student(depth: int) -> tuple[object, ...]:
    """Options of a student of so many blocks."""
    words = list(TINY_STUDENT)
    words[words.index("--depth") + 1] = depth
    return tuple(words)


TRAINED = (*student(4), "--workers", 0, "--batch-size", 8, "--epochs", 1, "--base-lr", 0.02)
"""Of a run whose encoder has the four depths that UPerNet looks at."""


@place
def other_pictures(_: Places, path: Path) -> None:
    for number in range(12):
        name = ("ant", "bee", "cat")[number % 3]
        write_picture(path / name / f"{number:03d}.jpg", 100 + number, (50, 44))


@place
def photos(_: Places, path: Path) -> None:
    """One of them is turned by its EXIF."""
    write_photos(path)


@place
def table(places: Places, path: Path) -> Path:
    """A CSV table of pictures that `other_pictures` has, too, in two orders."""
    below = places["other_pictures"]
    names = sorted(str(picture.relative_to(below)) for picture in below.rglob("*.jpg"))
    rows = zip(names, names[::-1], strict=True)
    lines = ["path,other,label,text", *(f"{a},{b},{a[:3]},Of {a}" for a, b in rows)]
    path.with_suffix(".csv").write_text("\n".join(lines))
    return path.with_suffix(".csv")


@place
def other_images(places: Places, path: Path) -> None:
    run_cli("pack-images", places["other_pictures"], path, "--samples-per-shard", 5)


@place
def spoiled_images(places: Places, path: Path) -> None:
    """One image of twelve has a sound header and no end."""
    pictures = path.with_name("spoiled-pictures")
    shutil.copytree(places["other_pictures"], pictures)
    spoil(pictures / "ant" / "000.jpg")
    run_cli("pack-images", pictures, path, "--samples-per-shard", 5)


@place
def tar_without_an_image(_: Places, path: Path) -> Path:
    """A tar of which one sample has an image, and one has not."""
    path.mkdir()
    picture = path / "0.jpg"
    write_picture(picture, 0)
    with tarfile.open(path / "x.tar", "w") as tar:
        tar.add(picture, "0.jpg")
        tar.add(picture, "1.txt")
    return path / "x.tar"


@place
def coloured(_: Places, path: Path) -> None:
    """Folders of three classes whose colours are hard to tell apart."""
    write_coloured(path, 4, noise=200)


@place
def other_clip(_: Places, path: Path) -> None:
    write_tiny_clip(path, seed=1)


@place
def other_store(places: Places, path: Path) -> None:
    extract(places["images"], places["other_clip"], path, "--views", 2)


@place
def seeded(places: Places, path: Path) -> None:
    extract(places["images"], places["other_clip"], path, "--view-seed", 1)


@place
def other_targets(places: Places, path: Path) -> None:
    run_cli("pack-targets", "--targets", places["other_store"], "--out", path)


@place
def trained(places: Places, path: Path) -> None:
    pretrain(places["images"], places["targets"], path, options=(*TRAINED, "--ema-decay", 0.5))


@place
def other_trained(places: Places, path: Path) -> None:
    pretrain(places["images"], places["targets"], path, options=(*TRAINED, "--seed", 1))


@place
def unfinished(places: Places, path: Path) -> None:
    """A run whose state says that it is still at work."""
    shutil.copytree(places["trained"], path)
    edit_json(path / "state.json", state="running")


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@place
def scenes(_: Places, path: Path) -> None:
    write_ade_tree(path, {"training": 6, "validation": 2}, first=1)


@place
def names(_: Places, path: Path) -> None:
    path.write_text("sky\nsea\nland\n", encoding="utf-8")


@place
def other_names(_: Places, path: Path) -> None:
    path.write_text("roof\nroad\nriver\n", encoding="utf-8")


@place
def other_scenes(_: Places, path: Path) -> None:
    write_ade_tree(path, {"training": 6, "validation": 2}, first=1, block=5)


@place
def spoiled_scenes(places: Places, path: Path) -> None:
    shutil.copytree(places["scenes"], path)
    spoil(min((path / "images" / "training").iterdir()))


@place
def classifier(places: Places, path: Path) -> None:
    words = ("--encoder", places["trained"], "--workers", 0, "--epochs", 1, "--out", path)
    data = ("--train", places["other_images"], "--val", places["other_images"])
    run_cli("finetune", *words, *data)


@place
def segmenter(places: Places, path: Path) -> None:
    parts = places["scenes"] / "images"
    words = ("--encoder", places["trained"], "--workers", 0, "--steps", 1, "--out", path)
    data = ("--train", parts / "training", "--val", parts / "validation", "--batch-size", 2)
    size = ("--classes", 3, "--reduce-zero-label", "--channels", 8, "--image-size", 32)
    run_cli("segment", *words, *data, *size)


@place
def broken_pictures(places: Places, path: Path) -> None:
    """One picture is none."""
    shutil.copytree(places["other_pictures"], path)
    (path / "ant" / "000.jpg").write_bytes(b"no picture")


@place
def wide_clip(_: Places, path: Path) -> None:
    write_tiny_clip(path, image_size=56)


def extract(images: Path, clip: Path, out: Path, *more: object) -> None:
    words = ("--images", images, "--out", out, "--teacher", f"local-dir:{clip}")
    run_cli("extract-targets", *words, *more)


@place
def int8_store(places: Places, path: Path) -> None:
    extract(places["images"], places["clip"], path, "--views", 2, "--codec", "int8")


@place
def part_store(places: Places, path: Path) -> None:
    """The first shard's targets alone."""
    extract(places["images"], places["clip"], path, "--part", "0/3")


@place
def part_targets(places: Places, path: Path) -> None:
    words = ("--targets", places["part_store"], "--out", path)
    run_cli("pack-targets", *words, "--allow-unfinished")


@place
def named_store(places: Places, path: Path) -> None:
    """Targets of a model that open_clip has by name, with weights from a file."""
    weights = ("--pretrained", places["clip"] / "open_clip_model.safetensors")
    words = ("--images", places["images"], "--out", path)
    run_cli("extract-targets", *words, "--teacher", "tiny-of-options", *weights)


@place
def damaged_store(places: Places, path: Path) -> None:
    shutil.copytree(places["store"], path)
    victim = next((path / "view-00" / "images-000000" / "codes" / "c").rglob("0"))
    victim = next(file for file in victim.parent.rglob("*") if file.is_file())
    victim.write_bytes(b"")


@place
def official(_: Places, path: Path) -> Path:
    torch.save({"model": official_weights()}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@place
def other_official(_: Places, path: Path) -> Path:
    state = {name: 1.1 * weight for name, weight in official_weights().items()}
    torch.save({"model": state}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@place
def results(places: Places, path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        words = ("--encoder", places["trained"], "--seed", seed, "--out", path / name, "--k", 5)
        data = ("--train", places["images"], "--val", places["other_images"])
        run_cli("probe", *words, *data, "--linear", "none", "--workers", 0)


def write_recipe(places: Places, path: Path, epochs: int) -> None:
    training = {"batch-size": 8, "epochs": epochs, "workers": 0}
    extraction = {"teacher": f"local-dir:{places['clip']}", "precision": "fp32"}
    document = {"extract-targets": extraction, "pretrain": training, "finetune": training}
    path.write_text(json.dumps(document))


@place
def recipe(places: Places, path: Path) -> None:
    write_recipe(places, path, epochs=1)


@place
def other_recipe(places: Places, path: Path) -> None:
    write_recipe(places, path, epochs=2)
