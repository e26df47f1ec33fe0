"""What a card tells of the teachers that a run learnt from."""

from milan_pipeline.stages.export.card import teachers_of
from milan_pipeline.weights.model_card import Card, card_bytes

CONTENT = {"target": "features"}


def recorded(name, **more):
    return {"identity_hash": f"hash of {name}", "identity": {"teacher": {"name": name} | more}}


def test_each_of_several_teachers_is_told_with_its_licence():
    parts = {"dino": recorded("DINO"), "clip": recorded("CLIP", license="mit")}
    found = teachers_of({"targets": parts, "pairs": "p"}, CONTENT)
    assert found["Teacher (clip)"] == "CLIP"
    assert found["Teacher (dino)"] == "DINO"
    assert found["Licence of the teacher (clip)"] == "mit"
    assert "look it up" in found["Licence of the teacher (dino)"]
    assert found["Identity of the targets (dino)"] == "`hash of DINO`"
    assert found["Pairs of images and targets"] == "`p`"


def test_names_of_classes_are_shown_as_they_are():
    card = Card(
        kind="classifier", form="timm", model="m", parameters=1, image_size=8,
        classes=("<b>", "two\nlines", "a_b*c*", "plain"), origin={}, figures=(),
    )  # fmt: skip
    assert r"Classes (4): \<b\>, two lines, a\_b\*c\*, plain." in card_bytes(card).decode()


def test_a_single_teacher_needs_no_name():
    found = teachers_of(recorded("CLIP") | {"pairs": "p"}, CONTENT)
    assert list(found)[:2] == ["Teacher", "Licence of the teacher"]
    assert "pixels" in teachers_of({"target": "pixels"}, {"target": "pixels"})["Teacher"]
