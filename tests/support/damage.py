"""A store of targets that is damaged on purpose, and what `verify` says of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
import zarr

from milan_pipeline.targets.units import Mark
from tests.support.cli import run_cli
from tests.support.stores import values_of

UNIT = "view-01/images-000001"


def rehash(store: Path, unit: str = UNIT) -> None:
    """Write a unit's mark anew for the objects as they are."""
    place = store / "done" / f"{unit}.json"
    mark = Mark(**json.loads(place.read_bytes()))
    for path in mark.objects:
        mark.objects[path] = xxhash.xxh3_128_hexdigest((store / unit / path).read_bytes())
    place.write_bytes(mark.to_bytes())


def change(store: Path, name: str, edit: Callable[[Any], Any], unit: str = UNIT) -> None:
    """Change an array's values, leaving hashes and checksums in order."""
    group = zarr.open_group(str(store / unit), mode="r+")
    array = group[name]
    assert isinstance(array, zarr.Array)
    array[:] = edit(values_of(group, name))
    rehash(store, unit)


def flip_bit(path: Path, at: int = 5) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(bytes(data))


def verify(store: object, capsys, *words: object, code: int = 0) -> tuple[dict[str, Any], str]:
    """Run the stage; return its JSON object and all that it said."""
    capsys.readouterr()
    run_cli("verify", store, "--sample", 8, "--json", *words, code=code)
    output = capsys.readouterr()
    return json.loads(output.out), output.out + output.err


def open_unit(store: Path) -> zarr.Group:
    return zarr.open_group(str(store / UNIT), mode="r")
