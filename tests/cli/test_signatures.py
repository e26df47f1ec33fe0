"""Options become parameters: their kinds, types and defaults, and their help a docstring."""

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.signatures import document_of, signature_of
from tests.support.cli import Bake

BAKE = stage_command("bake", Bake, run=print, dry_run=print)


def test_parameters_are_typed() -> None:
    assert [str(each) for each in signature_of(BAKE).parameters.values()][:6] == [
        "flour: 'StrPath'",
        "batch_size: 'int' = 4",
        "heat: 'float | None' = None",
        "kind: 'Literal[\"plain\", \"nut\"]' = 'plain'",
        "spice: 'str | list[str] | tuple[str, ...]' = ()",
        "cover: 'bool' = True",
    ]
    assert {"config", "dry_run", "quiet"} < set(signature_of(BAKE).parameters)


def test_the_docstring_has_the_help_of_each() -> None:
    lines = document_of(BAKE).splitlines()
    assert lines[:4] == ["Bake a cake.", "", "Args:", "    flour: FLOUR of the command line."]
    assert "    heat: Degrees." in lines
    assert "    dry_run: Print what would be done, and do nothing." in lines
