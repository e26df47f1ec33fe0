"""What `pretrain` is told of its teachers: --targets, --target-weight and --prior-from."""

import math
import re
from collections.abc import Sequence

from milan_pipeline.errors import ConfigError

NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
"""NAME=FOLDER or NAME=NUMBER; a folder whose own name has `=` can be given as ./FOLDER."""


def target_folders(targets: Sequence[str]) -> dict[str, str]:
    """Return the folders of target shards by the teachers' names, in the order given.

    A single folder may have no name, which is the empty one then.

    Raises:
        ConfigError: one of several has no name, or two have the same.
    """
    folders: dict[str, str] = {}
    for text in targets:
        found = NAMED.fullmatch(text)
        name, folder = found.groups() if found else ("", text)
        if not name and len(targets) > 1:
            raise ConfigError(
                f"--targets {text} has no name; with several, give each one: dino={text}"
            )
        if not folder:
            raise ConfigError(f"--targets {text} names no folder; give {name}=FOLDER")
        if name in folders:
            raise ConfigError(f"--targets has the name {name} twice; give each teacher its own")
        folders[name] = folder
    return folders


def target_weights(weights: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """Return the weight of each teacher's loss by their names, in alphabetical order.

    Args:
        weights: NAME=NUMBER each; teachers that are not there weigh 1.
        names: of the teachers.

    Raises:
        ConfigError: one is not of that form, is not above 0, or names no teacher, or one twice.
    """
    found: dict[str, float] = {}
    for text in weights:
        name, _, number = text.rpartition("=")
        if name not in names or len(names) < 2:
            said = ", ".join(filter(None, names)) or "none with a name"
            raise ConfigError(
                f"--target-weight {text} weighs no teacher among several; --targets has {said}: "
                "give NAME=NUMBER of one of several, or leave it out"
            )
        if name in found:
            raise ConfigError(f"--target-weight has {name} twice; give it once")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise ConfigError(
                f"--target-weight {text} has no number; give {name}=0.5, for instance"
            ) from error
        if not 0 < found[name] < math.inf:
            raise ConfigError(
                f"--target-weight {text} is not above 0; to leave a teacher out, leave out its "
                "--targets"
            )
    return dict(sorted((dict.fromkeys(names, 1.0) | found).items()))


def require_teachers(
    targets: Sequence[str], weights: Sequence[str], prior_from: str | None
) -> None:
    """Refuse options of teachers that do not fit each other.

    Raises:
        ConfigError: they do not.
    """
    names = list(target_folders(targets))
    target_weights(weights, names)
    if prior_from is not None and (prior_from not in names or len(names) < 2):
        said = ", ".join(filter(None, names)) or "none with a name"
        raise ConfigError(
            f"--prior-from {prior_from} chooses no teacher among several; --targets has {said}: "
            "give one of several, or leave it out"
        )
