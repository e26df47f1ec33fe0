"""Cards of dense evaluations: what differs, what a table says of it, and what it does not join."""

import dataclasses

from milan_pipeline.evaluate.comparison import rows_of, to_documents
from milan_pipeline.evaluate.dense_protocol import (
    DenseProtocol,
    card_line,
    differing_fields,
    warnings_of_protocols,
)
from milan_pipeline.evaluate.differences import ties
from tests.support.runs import result

CARD = DenseProtocol(
    method="a head", encoder="frozen", features="patches", resolution="64 x 64 pixels",
    aspect_ratio="kept", crop="none", stride=None, interpolation_of_masks="none",
    masks_scored_at="their own size", enlargement_of_answers="bilinear", classes=3,
    ignored=[255], precision="fp32", details={"training": {"steps": 9, "views": None}},
)  # fmt: skip


def scored(name, seed=0, **changes):
    """Return a result of a segmentation by a card with some fields changed."""
    card = dataclasses.replace(CARD, **changes).document()
    found = result(
        name, seed, stage="segment", metrics={"miou": 40.0, "best-miou": 41.0},
        inputs={"val": "f00d"}, extras={"protocol": card},
    )  # fmt: skip
    return dataclasses.replace(found, intervals={"miou": (35.0, 45.0)})


def test_details_stand_beside_the_fields_that_all_methods_have():
    card = CARD.document()
    assert card["training"] == {"steps": 9, "views": None}
    assert "details" not in card
    line = card_line(card)
    assert line.startswith("method: a head; encoder: frozen; ")
    assert "stride: none; scales: 1.0; " in line
    assert line.endswith("training: steps 9, views none")


def test_rows_of_other_protocols_are_told_of_and_not_called_equal():
    alike = [scored("a"), scored("b")]
    assert warnings_of_protocols(alike) == []
    assert [tie.metric for tie in ties(rows_of(alike))] == ["miou"]
    other = [scored("a"), scored("b", masks_scored_at="64 x 64 pixels", stride=21)]
    (line,) = warnings_of_protocols(other)
    assert line.startswith("miou: protocols of the rows differ (stride, masks scored at); ")
    assert ties(rows_of(other)) == []
    without = result("c", stage="segment", metrics={"miou": 1.0})
    assert warnings_of_protocols([*alike, without]) == []


def test_segmenters_of_other_recipes_are_compared_as_they_are_scored_alike():
    """A pair that is not listed reads as one that differs."""
    sweep = [scored(f"{rate}", details={"training": {"base_lr": rate}}) for rate in (0.1, 0.2)]
    results = [*sweep, scored("scored only", encoder=None, details={"training": None})]
    assert len(ties(rows_of(results))) == 3
    assert warnings_of_protocols(results) == []


def test_seeds_of_two_resolutions_are_two_rows():
    """Options are the same: the resolution of `probe --dense` is that of the encoder."""
    results = [
        scored("a", seed, resolution=f"{size} pixels") for seed, size in enumerate((32, 32, 64))
    ]
    rows = rows_of(results, over_seeds=True)
    assert [(len(row.results), row.settings) for row in rows] == [
        (2, {"resolution": "32 pixels"}), (1, {"resolution": "64 pixels"}),
    ]  # fmt: skip
    assert to_documents(rows_of(results[:1]))[0]["protocol"]["resolution"] == "32 pixels"


def test_fields_that_differ_come_in_their_order():
    assert differing_fields([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": None}, {"a": 2, "b": 2}]) == [
        "a", "b",
    ]  # fmt: skip
