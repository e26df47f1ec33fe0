"""Try the table's mutations and tell which test catches each: `python -m tests.mutations`."""

import tempfile
from pathlib import Path

import click

from tests.mutations.table import STAGES, mutations_of
from tests.mutations.trials import Trials

ROOT = Path(__file__).parents[2]


@click.command()
@click.argument("stages", nargs=-1, type=click.Choice(STAGES))
@click.option("--only", default="", help="Try those alone whose meaning or file has this text.")
@click.option("--whole", is_flag=True, help="Run all default tests on what the likely ones pass.")
def main(stages: tuple[str, ...], *, only: str, whole: bool) -> None:
    """Try the mutations of STAGES, or of all; exit with 1 if one survives."""
    chosen = {
        stage: [m for m in mutations_of(stage) if only in m.means or only in m.file]
        for stage in stages or STAGES
    }
    for mutation in (each for rows in chosen.values() for each in rows):
        try:
            mutation.applied((ROOT / mutation.file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise click.ClickException(str(error)) from error
    survivors, caught_by = 0, set[str]()
    with tempfile.TemporaryDirectory() as folder, Trials(ROOT, Path(folder)) as trials:
        for stage, rows in chosen.items():
            for mutation in rows:
                test = trials.catcher(mutation, whole=whole)
                if test is None:
                    survivors += 1
                else:
                    caught_by.add(test)
                click.echo(f"{stage:8} | {mutation.means:64} | {test or 'SURVIVED'}")
        # A test that fails anyway has caught nothing.
        unsound = trials.failing(sorted(caught_by)) if caught_by else []
    for test in unsound:
        click.echo(f"FAILS WITHOUT ANY MUTATION, TOO: {test}")
    click.echo(f"{sum(map(len, chosen.values()))} mutations, {survivors} survive")
    raise SystemExit(bool(survivors or unsound))


if __name__ == "__main__":
    main()
