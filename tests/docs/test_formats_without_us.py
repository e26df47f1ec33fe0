"""docs/formats.md: its code reads stores of every codec, without this package."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from milan_pipeline.codecs.interface import decode_prior
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.layout import read_identity
from tests.support.cli import run_cli
from tests.support.stores import values_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
CODECS = ("float16", "bfloat16", "int8", "joint:bytes=4", "joint:bytes=1.2", "rotation:bits=3")


@pytest.fixture(scope="module")
def recipe() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), flags=re.DOTALL)
    return str(code)


def test_few_lines_of_zarr_and_numpy(recipe: str) -> None:
    assert len([line for line in recipe.splitlines() if line]) <= 38
    parsed = ast.walk(ast.parse(recipe))
    nodes = [node for node in parsed if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in nodes} == {
        "import hashlib",
        "import numpy as np",
        "import zarr",
    }


@pytest.mark.parametrize("text", CODECS)
def test_what_it_reads(target_store: Path, tmp_path: Path, recipe: str, text: str) -> None:
    store = target_store
    if text != "float16":
        store = tmp_path / "targets.zarr"
        run_cli("transcode", target_store, store, "--codec", text)
    names: dict[str, Any] = {}
    exec(recipe, names)  # noqa: S102 - of our own documentation
    codec = read_store_codec(str(store), read_identity(str(store)))
    for unit in ("view-00/images-000000", "view-01/images-000002"):
        tokens, prior = names["read_targets"](str(store), unit)
        group = zarr.open_group(store / unit, mode="r")
        codes = torch.from_numpy(values_of(group, "codes"))
        scale = torch.from_numpy(values_of(group, "scale")) if "scale" in group else None
        assert (tokens.shape, tokens.dtype) == ((len(codes), 17, 24), np.float32)
        assert np.allclose(tokens, codec.decode(codes, scale).numpy(), rtol=1e-5, atol=1e-5)
        assert (prior.shape, prior.dtype) == ((len(codes), 16), np.float32)
        assert np.allclose(prior, decode_prior(values_of(group, "prior")), rtol=1e-5, atol=0)
        assert (prior > 0).all()
        if codec.spec.is_directional:
            assert 0.7 < np.linalg.norm(tokens, axis=-1).mean() < 1.1
