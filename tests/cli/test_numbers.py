"""Numbers are read as users write them; where they may mean something else, they are refused."""

import pytest

from milan_pipeline.cli.numbers import real_number, whole_number


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("12", None, 12),
        ("1e6", "images", 10**6),
        ("1_000_000", "images", 10**6),
        ("1.28M", "images", 1_280_000),
        ("3k", "steps", 3000),
        ("5.0", "images", 5),
        ("110kB", "bytes", 110_000),
        ("1 GiB", "bytes", 2**30),
        ("-1", "number", -1),
    ],
)
def test_whole_numbers(text: str, unit: str | None, value: int) -> None:
    found = whole_number(text, unit)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("2GB/s", "bytes/s", 2e9),
        ("1%", "share", 0.01),
        ("0.5", "GB", 0.5),
        ("1.5k", "images/s", 1500),
        ("1e-4", "rate", 1e-4),
    ],
)
def test_real_numbers(text: str, unit: str, value: float) -> None:
    assert real_number(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("1,281,167", "images", "'1,281,167' is no whole number; write 1281167"),
        ("1.5", "images", "'1.5' is no whole number"),
        ("110kB", "images", "'110kB' is no whole number"),
        ("1m", "images", "'1m' is no whole number"),
        ("1%", "images", "'1%' is no whole number"),
        ("2_", "images", "'2_' is no whole number"),
        ("1e999M", "images", "is no whole number"),
        ("lots", "bytes", "'lots' is no whole number; write bytes, as 110000 or 110kB"),
    ],
)
def test_what_is_no_whole_number(text: str, unit: str, said: str) -> None:
    with pytest.raises(ValueError, match="whole") as error:
        whole_number(text, unit)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("500M", "GB", "'500M' is no number; write gigabytes, as 0.5"),
        ("1k", "share", "'1k' is no number; write a share of 1, as 0.01 or 1%"),
        ("5M", "seconds", "'5M' is no number"),
    ],
)
def test_what_is_no_number(text: str, unit: str, said: str) -> None:
    with pytest.raises(ValueError, match="no number") as error:
        real_number(text, unit)
    assert said in str(error.value)
