"""Facts as text: units by name, aligned lines, nothing lost that JSON has."""

import json

import pytest

from milan_pipeline.report.facts import flattened, label_of, lines_of, text_of


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("one_target_bytes", 1_234_567, "1.23 MB"),
        ("data_wait_seconds", 0.25, "0.25 s"),
        ("step_seconds", 7200.0, "2 h"),
        ("step_seconds", 1_000_000.0, "11.6 days"),
        ("data_wait_share", 0.0125, "1.25%"),
        ("targets", 1_281_167, "1,281,167"),
        ("seed", 12_345_678, "12345678"),
        ("loss", 0.123456789, "0.123457"),
        ("compiled", True, "yes"),
        ("min_scale", None, "none"),
        ("reasons", {}, "none"),
        ("reasons", {"empty": 2, "torn": 1}, "empty: 2, torn: 1"),
        ("first", list("abcdefg"), "a, b, c, d, e and 2 more"),
    ],
)
def test_values_in_words(name: str, value: object, text: str) -> None:
    assert text_of(name, value) == text


def test_nested_names_are_dotted() -> None:
    nested = {"teacher": {"grid": [14, 14], "deep": {"x": 1}}, "empty": {}}
    assert dict(flattened(nested)) == {"teacher.grid": [14, 14], "teacher.deep.x": 1, "empty": {}}


def test_lines_are_aligned_and_have_every_fact() -> None:
    facts = {"counts": {"targets": 3, "one_target_bytes": 10}, "ledger": {"skipped": 0}}
    assert list(lines_of(facts)) == [
        "counts",
        "  targets     3",
        "  one target  10 bytes",
        "ledger",
        "  skipped     0",
    ]
    assert json.loads(json.dumps(facts)) == facts
    assert label_of("data_wait_share") == "data wait share"
    assert label_of("data_wait_seconds") == "data wait"
    assert label_of("probe knn@1 (timm:test_vit), %") == "probe knn@1 (timm:test_vit), %"
