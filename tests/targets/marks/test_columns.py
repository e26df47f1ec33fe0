"""Marks come back from columns as they were put in, whatever they say."""

from milan_pipeline.images.budget import Skipped
from milan_pipeline.shards.columns import texts
from milan_pipeline.targets.marks.columns import NO_ROW, BriefMark, MarkColumns, Marks


def mark_of(name: str, **changes: object) -> BriefMark:
    skipped: list[Skipped] = [{"key": "ä", "reason": "r"}] if name > "b" else []
    said = {
        "shard": f"{name}.tar", "sha256": "5", "identity_hash": "id", "view": 0, "n": 2,
        "skipped": skipped, "source_unit": None, "unit_sha256": "u",
    }  # fmt: skip
    return BriefMark(**said | changes)  # type: ignore[arg-type]


MARKS = {
    "a.json": mark_of("a"),
    "c.json": mark_of("c", source_unit="s"),
    "é.json": mark_of("é", shard="https://x/é.tar", identity_hash="other"),
    "ü-\udcff.json": mark_of("ü-\udcff", view=3, sha256=""),
}


def columns_of(*names: str) -> MarkColumns:
    return MarkColumns.of(names, [MARKS[name] for name in names])


def marks_in(columns: MarkColumns) -> dict[str, BriefMark]:
    marks = Marks({"view-00": columns})
    return {path.removeprefix("done/view-00/"): mark for path, mark in marks.items()}


def test_marks_come_back() -> None:
    assert marks_in(columns_of(*MARKS)) == MARKS
    assert marks_in(MarkColumns.of([], [])) == {}


def test_marks_of_two_are_put_in_order() -> None:
    names = list(MARKS)
    merged = columns_of(*names[1::2]).merged(columns_of(*names[::2]))
    assert marks_in(merged) == MARKS
    assert list(marks_in(merged)) == names


def test_some_are_taken() -> None:
    columns = columns_of(*MARKS)
    rows = columns.rows_of(texts(["é.json", "b.json", "a.json"]))
    assert rows.tolist() == [2, NO_ROW, 0]
    assert marks_in(columns.take(rows[[2, 0]])) == {n: MARKS[n] for n in ("a.json", "é.json")}
    assert columns.lacking(["b.json", "c.json", "d.json"]) == ["b.json", "d.json"]
