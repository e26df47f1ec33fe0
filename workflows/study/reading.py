"""Reads a study's YAML."""

from pathlib import Path

from milan_pipeline.cli.recipes import read_yaml
from milan_pipeline.core.schema import DocumentError, conforming
from milan_pipeline.errors import ConfigError
from workflows.study.problems import problems_of
from workflows.study.spec import Images, Measure, Student, Study


def read_study(path: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: the file is no study, or names what it does not have.
    """
    document = read_yaml(path)
    try:
        study = conforming(document, Study)
        # Of a field within a field, types alone tell nothing where it is unknown.
        for kind, parts in ((Student, document["students"]), (Measure, document["measures"])):
            for part in parts.values():
                conforming(part, kind)
        conforming(document["images"], Images)
    except DocumentError as error:
        raise ConfigError(
            f"{path} is no study ({error}); see workflows/study/drawn.yaml"
        ) from error
    for problem in problems_of(study):
        raise ConfigError(f"{path}: {problem}")
    return study
