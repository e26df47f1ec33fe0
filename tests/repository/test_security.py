"""The code has no door through which data could become code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("milan_pipeline", "stages", "workflows", "benchmarks")
DOORS = {
    "pickle that is loaded": r"\b(c?pickle|dill|joblib|shelve|marshal)\.(loads?|open|Unpickler)\b"
    r"|read_pickle",
    "a shell": r"shell\s*=\s*True|os\.(system|popen)\b|subprocess\.(getoutput|getstatusoutput)\b",
    "code out of text": r"(?<![\w.])(eval|exec|compile|__import__)\(",
    "torch.load without weights_only=True": r"(?<![\w.])torch\.load\((?!.*\bweights_only=True)",
    "weights_only=False": r"weights_only\s*=\s*False",
    "np.load without allow_pickle=False": r"np\.load\((?!.*\ballow_pickle=False)",
    "allow_pickle=True": r"allow_pickle\s*=\s*True",
    # `StrictLoader`, and each `loader` that is one, is a `SafeLoader` that refuses more.
    "YAML that makes objects": r"(?<!tag:)yaml\.(?!safe_load\b|safe_dump\b|YAMLError\b|SafeLoader\b"
    r"|\w*Node\b|load\(text, (?:StrictLoader|loader)\))\w+",
    "a tar that is unpacked": r"\.extractall\(|\.extract\(|shutil\.unpack_archive\(",
}


def lines() -> list[tuple[str, str]]:
    """Every line of code, with its place; a call's arguments are joined to its first line."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = re.sub(r"\(\n\s*", "(", path.read_text())
            place = path.relative_to(ROOT)
            found += [(f"{place}: {line.strip()}", line) for line in text.splitlines()]
    return found


@pytest.mark.parametrize("door", DOORS)
def test_there_is_no(door: str) -> None:
    assert not [place for place, line in lines() if re.search(DOORS[door], line)]


@pytest.mark.parametrize(
    ("door", "line"),
    [
        ("pickle that is loaded", "pickle.load(stream)"),
        ("a shell", "subprocess.run(words, shell=True)"),
        ("a shell", "os.system(text)"),
        ("code out of text", "value = eval(text)"),
        ("torch.load without weights_only=True", "torch.load(path)"),
        ("np.load without allow_pickle=False", "np.load(path, mmap_mode='r')"),
        ("YAML that makes objects", "yaml.load(text)"),
        ("a tar that is unpacked", "tar.extractall(folder)"),
    ],
)
def test_such_a_door_would_be_seen(door: str, line: str) -> None:
    assert re.search(DOORS[door], line)
