"""What commands do before they load torch, or without it: help, plans, refusals."""

import dataclasses
import json
import subprocess
import sys
import typing
from typing import Any, NamedTuple

import pytest

from tests.options.running import config_classes

LIGHT = {"pack-images", "index", "compare", "status", "recipes", "doctor"}
"""Commands that load no torch, or look at no input."""
NO_INPUTS = {("transcode", "out"), ("inspect", "paths"), ("inspect", "results")}
"""Outputs, and what is read without torch."""

ANSWER = """
import contextlib, io, json, sys
from milan_pipeline.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(words)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    heavy = sorted({"torch", "open_clip", "timm"} & set(sys.modules))
    found.append((code, out.getvalue(), error.getvalue(), heavy))
print(json.dumps(found))
"""


class Answer(NamedTuple):
    """What a command says, and the heavy libraries that are loaded then."""

    code: int
    out: str
    error: str
    heavy: list[str]


@pytest.fixture(scope="module")
def answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Answer]:
    """The answers to all command lines below, by one process in an empty folder."""
    places = {name: request.getfixturevalue(fixture) for name, fixture in PLACES.items()}
    lines = [*HELP, *(line for line, _ in (*DONE, *REFUSED))]
    given = [[word.format_map(places) for word in line.split()] for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, json.dumps(given)],
        capture_output=True, text=True, check=True, cwd=tmp_path_factory.mktemp("empty"),
    )  # fmt: skip
    found = (Answer(*answer) for answer in json.loads(done.stdout))
    return dict(zip(lines, found, strict=True))


PLACES = {
    "pictures": "pictures", "images": "image_shards", "shards": "target_shards",
    "store": "target_store", "clip": "tiny_clip",
}  # fmt: skip
HELP = ["--help", *(f"{stage} --help" for stage in config_classes())]
PLAN = "plan --samples 5 --codec joint:bytes=4 --teacher"
DONE = [
    ("pack-images {pictures} packed", "24 images"),
    (f"{PLAN} local-dir:{{clip}}", "by multiply-adds alone"),
    (f"{PLAN} ViT-B-16", "by multiply-adds alone"),
    ("status {store}", ": done since "),
]
PRETRAIN = "pretrain --out run --images {images}"
EXTRACT = "extract-targets --out store --images {images}"
NO_SHARDS = "none/manifest.json does not exist; `milan-pipeline pack-images` makes one"
NO_PLACE = "none does not exist; check the path"
NO_STORE = "none holds no target store"
REFUSED = [
    ("extract-targets --out store --teacher ViT-B-32 --images none", NO_SHARDS),
    (f"{EXTRACT} --teacher ViT-B-33", "'ViT-B-33' is no open_clip model"),
    (f"{EXTRACT} --teacher ViT-B-32 --pretrained opnai", "neither a file nor a tag"),
    (f"{EXTRACT} --teacher timm:vit_nonsense.mae", "is no model of timm"),
    (f"{EXTRACT} --teacher local-dir:none", "has no readable configuration"),
    (f"{EXTRACT} --teacher timm:local-dir:none", "has no readable configuration"),
    (f"{EXTRACT} --teacher run:none", NO_PLACE),
    (f"{EXTRACT} --teacher ViT-B-32 --codec int7", "'int7'"),
    ("pretrain --out run --targets {shards} --images none", NO_SHARDS),
    ("pretrain --out run --targets {shards} --images {shards}", "lists 'targets' shards"),
    (f"{PRETRAIN} --targets none", "none/manifest.json does not exist; `milan-pipeline pack-t"),
    (f"{PRETRAIN} --targets clip=none", "none/manifest.json does not exist"),
    (f"{PRETRAIN} --targets {{store}}", "manifest.json does not exist"),
    (f"{PRETRAIN} --targets {{shards}} --init none", "none holds no run"),
    (f"{PRETRAIN} --targets {{shards}} --student vit_smal_patch16_224", "did you mean"),
    ("probe --encoder pixels --out scores --train none --val {images}", NO_PLACE),
    ("probe --encoder pixels --out scores --train {shards} --val {images}", "lists 'targets'"),
    ("probe --encoder runs/none --train {images} --val {images}", "check the path, or give a pub"),
    ("probe --encoder runs/first/none --train {images} --val {images}", "none does not exist"),
    ("probe --encoder vit_none --out scores --train {images} --val {images}", "nor a name that"),
    ("probe --encoder open_clip:ViT-B-33/openai --out s --train {images} --val {images}",
     "'open_clip:ViT-B-33/openai' is no open_clip model"),
    ("finetune --encoder pixels --train none --val {images} --out run", NO_PLACE),
    ("finetune --encoder vit_none --train {images} --val {images} --out run", "nor a name that"),
    ("segment --encoder pixels --train {images} --val none --out run --classes 2", NO_PLACE),
    ("pack-targets --targets none --out shards", NO_STORE),
    ("pack-targets --targets {store} --out shards --codec int7", "'int7'"),
    ("transcode none other --codec int8", NO_STORE),
    ("transcode {store} other --codec int7", "'int7'"),
    ("codecs none", NO_STORE),
    ("codecs {store} --codec int7", "'int7'"),
    ("verify {images}", "it has shards: give the store"),
    ("verify {store} --images none", NO_SHARDS),
    ("verify {store} --teacher local-dir:none", "has no readable configuration"),
    ("export none --form timm --out export", NO_PLACE),
    ("import-checkpoint none --out run", NO_PLACE),
    ("import-checkpoint {images}/manifest.json --out run --student vit_none", "no model that"),
    ("inspect {images} --html page.html --images none", NO_SHARDS),
    ("plan --images none --teacher ViT-B-32", NO_SHARDS),
    ("submit none --images {images} --out out", "'none' is neither a file nor a recipe"),
    ("submit imagenet1k-vit-b16 --images none --out out", NO_SHARDS),
    ("submit imagenet1k-vit-b16 --images {images} --out out --val none", NO_PLACE),
]  # fmt: skip


@pytest.mark.parametrize("line", HELP)
def test_help_loads_nothing_heavy(answers: dict[str, Answer], line: str) -> None:
    found = answers[line]
    assert found.out.startswith("Usage: milan-pipeline")
    assert (found.code, found.heavy) == (0, [])


@pytest.mark.parametrize(("line", "said"), DONE)
def test_what_needs_no_torch_loads_none(answers: dict[str, Answer], line: str, said: str) -> None:
    found = answers[line]
    assert said in found.out
    assert (found.code, found.heavy) == (0, [])


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_what_is_not_there_is_refused_at_once(
    answers: dict[str, Answer], line: str, said: str
) -> None:
    found = answers[line]
    assert said in found.error
    assert found.code in (1, 2)
    assert found.heavy == []


@pytest.mark.parametrize("stage", sorted(set(config_classes()) - LIGHT))
def test_every_input_is_looked_at(stage: str) -> None:
    kind = config_classes()[stage]
    hints = typing.get_type_hints(kind)
    unseen = [
        field.name
        for field in dataclasses.fields(kind)
        if _names_input(field, hints[field.name])
        and (stage, field.name) not in NO_INPUTS
        and field.metadata.get("look") is None
    ]
    assert unseen == []


def _names_input(field: "dataclasses.Field[Any]", hint: Any) -> bool:
    """Tell whether a field is a text that is no choice, as an input or what is read as one."""
    if hint is not str and str not in typing.get_args(hint):
        return False
    given = field.metadata
    if given["kind"] != "option":
        return True
    is_input = given["group"] == "Input" or field.name in ("encoder", "teacher", "init")
    return is_input and not given["choices"]
