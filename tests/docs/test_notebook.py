"""The notebook docs/first-steps.ipynb runs from its first cell to its last, on tiny data."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import milan_pipeline as mp
from tests.docs.documentation import DOCS
from tests.docs.stand_ins import write_world

NOTEBOOK = DOCS / "first-steps.ipynb"
TINY: dict[str, Any] = {"patch_size": 8, "width": 32, "depth": 1, "heads": 2, "decoder_width": 32}
TINY |= {"decoder_depth": 1, "decoder_heads": 2, "student": "vit_tiny_patch16_224"}
SHORT = {"max_steps": 2, "workers": 0}


def code_cells() -> list[dict[str, Any]]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def tiny_settings(clip: Path) -> dict[str, Any]:
    """What stands in for the cell of settings; each name must be one of that cell's."""
    return {
        "teacher": {"teacher": f"local-dir:{clip}", "precision": "fp32"},
        "student": TINY | SHORT,
        "classifier": {"config": "finetune-few-labels", "batch_size": 2} | SHORT,
    }


@pytest.mark.slow
def test_it_runs(
    pictures: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    write_world(tmp_path, pictures, tiny_clip)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells()):
        text = "".join(cell["source"])
        exec(compile(text, f"{NOTEBOOK.name}, code cell {number}", "exec"), names)  # noqa: S102
        if "parameters" in cell["metadata"].get("tags", ()):
            settings = tiny_settings(tiny_clip)
            assert settings.keys() < names.keys()
            names |= settings
    assert set(names["scores"].summary["metrics"]) >= {"knn@10", "linear"}
    assert "top1" in names["classes"].summary["metrics"]
    assert names["tokens"].shape == (1, 17, 32)
    assert (tmp_path / "runs/first-steps.html").exists()
    capsys.readouterr()

    again = exec_of("scores = mp.probe", names)  # a cell that is run again gives the same
    assert again["scores"].summary["nothing_to_do"] is True
    assert again["scores"].summary["metrics"] == names["scores"].summary["metrics"]


def exec_of(beginning: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the cell with this beginning again, and return what it leaves."""
    (cell,) = (each for each in code_cells() if each["source"][0].startswith(beginning))
    own = dict(names)
    exec("".join(cell["source"]), own)  # noqa: S102 - our own notebook
    return own


def test_it_calls_what_there_is_and_keeps_no_output() -> None:
    for cell in code_cells():
        text = "".join(cell["source"])
        compile(text, NOTEBOOK.name, "exec")
        assert set(re.findall(r"\bmp\.(\w+)", text)) <= set(mp.__all__)
        assert not cell["outputs"]
        assert cell["execution_count"] is None
