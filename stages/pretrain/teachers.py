"""What `pretrain` is told of its teachers: --targets, --target-weight and --prior-from."""

import contextlib
import math
import os
import re
from collections.abc import Mapping, Sequence

from milan_pipeline.codecs.registry import DIRECTIONAL, PLAIN
from milan_pipeline.core.console import warn
from milan_pipeline.errors import ConfigError
from milan_pipeline.stages.shared import inputs

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
            said, _, path = text.partition("=")
            remedy = f"with several, give each one: dino={path or text}"
            if path:  # a name that is none, and not a path with the sign in it
                remedy += f" ({said!r} has not only letters, digits, dots and - or _ behind one)"
            raise ConfigError(f"--targets {text} has no name; {remedy}")
        if not folder:
            raise ConfigError(f"--targets {text} names no folder; give {name}=FOLDER")
        if name and not os.path.isdir(folder) and os.path.isdir(text):  # noqa: PTH112 - or a URL
            raise ConfigError(
                f"--targets {text} names the teacher {name} and the folder {folder}, which is not "
                f"there; if {text} is the folder, give ./{text}"
            )
        if name in folders:
            raise ConfigError(f"--targets has the name {name} twice; give each teacher its own")
        folders[name] = folder
    return folders


def look_at_targets(given: str) -> None:
    """Refuse what is no folder of target shards, or no NAME=FOLDER of one."""
    for folder in target_folders([given]).values():
        inputs.target_shards(folder)


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
                f"--target-weight {text} is not above 0 and finite; to leave a teacher out, leave "
                "out its --targets"
            )
    return dict(sorted((dict.fromkeys(names, 1.0) | found).items()))


def same_weights(
    weights: Sequence[str], recorded: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    """Return weights as a run's record has them if they mean the same; else those that are not 1.

    Args:
        weights: see `target_weights`.
        recorded: those of an earlier part of the run; none if there is no record.
        names: of the teachers.

    Raises:
        ConfigError: see `target_weights`; it is not raised for those that are recorded.
    """
    found = target_weights(weights, names)
    with contextlib.suppress(ConfigError):  # recorded for other teachers
        if target_weights(recorded, names) == found:
            return tuple(recorded)
    return tuple(f"{name}={weight}" for name, weight in found.items() if weight != 1)


def warn_of_lost_lengths(codecs: Mapping[str, str]) -> None:
    """Say so where targets are to be taken as they are stored, but without their lengths.

    Args:
        codecs: the name of each codec by the folder of its target shards.
    """
    lost = [folder for folder, codec in codecs.items() if codec in DIRECTIONAL]
    if lost:
        warn(
            f"--target-norm none takes targets with their lengths, but the codec of --targets "
            f"{' and '.join(lost)} keeps directions alone, and all lengths are near 1; give "
            f"targets in {', '.join(PLAIN[:-1])} or {PLAIN[-1]}, or --target-norm l2"
        )


def warn_of_unused_views(packed: Mapping[str, int], views: int) -> None:
    """Say so where some of a teacher's views are not used because another teacher lacks them.

    Args:
        packed: how many views the target shards of each teacher hold.
        views: how many of them are used.
    """
    fewest = min(packed, key=packed.__getitem__)
    more = [f"{count} views of {name}" for name, count in packed.items() if count > packed[fewest]]
    if more and views == packed[fewest]:
        warn(
            f"of {' and '.join(more)} only {views} are used, since {fewest} has no more; extract "
            f"and pack more views of {fewest} to use all"
        )


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
