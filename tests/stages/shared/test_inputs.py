"""Inputs that are not there are refused before torch is loaded, by every stage that loads it."""

import dataclasses
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from tests.options.running import config_classes

LIGHT = {"pack-images", "index", "compare", "status", "recipes", "doctor"}
"""Commands that load no torch, or look at no input."""
NO_INPUTS = {("transcode", "out"), ("inspect", "paths"), ("inspect", "results")}
"""Outputs, and what is read without torch."""

REFUSE = """
import contextlib, io, json, sys
from milan_pipeline.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main(words)
            code = 0
        except SystemExit as stop:
            code = stop.code
    heavy = sorted({"torch", "open_clip", "timm"} & set(sys.modules))
    found.append((code, said.getvalue(), heavy))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refused(
    image_shards: Path,
    target_shards: Path,
    target_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[int, str, list[str]]]:
    """What each of `CASES` says, in one process."""
    places = {"images": image_shards, "shards": target_shards, "store": target_store}
    given = [[word.format_map(places) for word in words.split()] for words, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-c", REFUSE, json.dumps(given)],
        capture_output=True, text=True, check=True, cwd=tmp_path_factory.mktemp("empty"),
    )  # fmt: skip
    return dict(zip((words for words, _ in CASES), json.loads(done.stdout), strict=True))


PRETRAIN = "pretrain --out run --images {images}"
EXTRACT = "extract-targets --out store --images {images}"
NO_SHARDS = "none/manifest.json does not exist; `milan-pipeline pack-images` makes one"
NO_PLACE = "none does not exist; check the path"
NO_STORE = "none holds no target store"
CASES = [
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


@pytest.mark.parametrize(("words", "said"), CASES)
def test_what_is_not_there_is_refused_at_once(
    refused: dict[str, tuple[int, str, list[str]]], words: str, said: str
) -> None:
    code, text, heavy = refused[words]
    assert said in text
    assert code in (1, 2)
    assert heavy == []


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
