"""`milan-pipeline recipes [NAME]`: list the installed recipes, or show one."""

import dataclasses
import itertools
from pathlib import Path

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.cli.options import argument
from milan_pipeline.cli.recipes import find_recipe, read_sections, recipe_names
from milan_pipeline.core.console import named_lines, report


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowRecipes:
    """List the installed recipes, or show the one that is called NAME.

    A recipe is a YAML file with values of options for one or more commands: --config NAME takes
    them. To change one, write it to a file of your own and give that to --config.
    """

    name: str | None = argument(None, complete=recipe_names)


def run(config: ShowRecipes) -> None:
    """Print the names and what they are for, or the text of one."""
    if config.name is None:
        files = {name: find_recipe(name) for name in recipe_names()}
        rows = {name: purpose_of(path) for name, path in files.items()}
        document = [
            {"name": name, "purpose": rows[name], "stages": list(read_sections(path))}
            for name, path in files.items()
        ]
        report(named_lines(rows.items()), document)
        return
    path = find_recipe(config.name)
    text = path.read_text(encoding="utf-8")
    report(text.splitlines(), {"name": path.stem, "sections": read_sections(path)})


def purpose_of(recipe: Path) -> str:
    """Return the first sentence of the comment that a recipe begins with."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("# ") and line[2] != " ", lines)
    return " ".join(line[2:] for line in comment).partition(". ")[0].rstrip(".:")


command = stage_command(
    "recipes",
    ShowRecipes,
    run=run,
    dry_run=None,
    example="milan-pipeline recipes own-images-1gpu",
    takes_recipes=False,
)
