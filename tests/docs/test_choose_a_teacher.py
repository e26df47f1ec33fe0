"""The page on teachers: its table of names says what timm's configurations say."""

import re

import pytest

from milan_pipeline.teacher.description import visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from tests.docs.documentation import DOCS

PAGE = (DOCS / "choose-a-teacher.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| `(timm:\S+)` \| (\d+) \| (\d+) \| (\d+) \| (\w+) \| (\S+) \|$", PAGE, re.MULTILINE
)


def test_the_table_has_every_family() -> None:
    families = ("dinov2", "dinov3", "siglip", "pe_core", "pe_spatial", "eva02", "mae", "deit3")
    assert all(any(family in row[0] for row in ROWS) for family in families)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_what_the_configuration_says(row: tuple[str, ...]) -> None:
    name, *stated = row
    known = visible_identity(TeacherSpec(name=name))
    teacher = known["teacher"]
    found = (known["preprocessing"]["size"], teacher["grid"][0], teacher["width"])
    assert [*map(str, found), teacher["prior"], teacher["license"]] == stated
