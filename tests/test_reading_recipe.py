"""docs/reading-targets.md: its code reads stores of every codec, without this package."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milan_pipeline.codec_files import read_store_codec
from milan_pipeline.codecs import decode_prior
from milan_pipeline.target_store import read_identity
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import read_marks
from tests.conftest import values_of
from tests.fitted_store import decoded, list_store_units, recoded_store

DOCUMENT = Path(__file__).parent.parent / "docs" / "reading-targets.md"
CODECS = ("float16", "bfloat16", "int8", "vector:bytes=4", "transform:bytes=3")


@pytest.fixture(scope="module")
def recipe() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), flags=re.DOTALL)
    return str(code)


def test_twenty_lines_of_zarr_and_numpy(recipe: str) -> None:
    assert len(recipe.splitlines()) <= 20
    parsed = ast.walk(ast.parse(recipe))
    nodes = [node for node in parsed if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {ast.unparse(node) for node in nodes} == {"import numpy as np", "import zarr"}


@pytest.mark.parametrize("text", CODECS)
def test_what_it_reads(target_store: Path, tmp_path: Path, recipe: str, text: str) -> None:
    store = tmp_path / "targets.zarr"
    recoded_store(target_store, store, text)
    names: dict[str, Any] = {}
    exec(recipe, names)  # noqa: S102 - of our own documentation
    codec = read_store_codec(str(store), read_identity(str(store)))
    marks = read_marks(str(store), 2)
    for unit in list_store_units(store):
        mark = marks[unit.mark_path]
        tokens, prior = names["read_targets"](str(store), unit.path)
        wanted = decoded(store, unit, mark, codec).numpy()
        assert (tokens.shape, tokens.dtype) == ((mark.n, 17, 24), np.float32)
        assert np.allclose(tokens, wanted, rtol=1e-5, atol=1e-5)
        stored = values_of(open_unit(str(store), unit, mark), "prior")
        assert (prior.shape, prior.dtype) == ((mark.n, 16), np.float32)
        assert np.allclose(prior, decode_prior(stored), rtol=1e-5, atol=0)
        assert (prior > 0).all()
    if codec.spec.needs_fit:
        lengths = np.linalg.norm(tokens, axis=-1)
        assert 0.9 < lengths.mean() < 1.1
