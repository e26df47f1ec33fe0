"""Files that were left out: the manifest stays small however many they are."""

import json

from milan_pipeline.images.folder_walk import Ignored
from milan_pipeline.shards.ignored import ignored_fields


def rows_of(count: int) -> list[Ignored]:
    return [{"file": f"{n}\udcff.txt", "reason": "late" if n % 3 else "lost"} for n in range(count)]


def test_many_are_counted_and_have_a_file_of_their_own(tmp_path):
    few, many = rows_of(100), rows_of(3000)
    assert ignored_fields(str(tmp_path), few) == {"ignored": few}
    assert not list(tmp_path.iterdir())
    fields = ignored_fields(str(tmp_path), many)
    assert fields == {"ignored": many[:100], "ignored_counts": {"late": 2000, "lost": 1000}}
    lines = (tmp_path / "ignored.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == many
