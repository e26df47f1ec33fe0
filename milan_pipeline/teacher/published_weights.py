"""Published weights in open_clip's registry, also those that are given as a file or a folder.

The registry knows a file by its name, by the hub repository of its cache or folder or, for a `.pt`
file, by its sha256.
"""

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from milan_pipeline.errors import ConfigError
from milan_pipeline.teacher.open_clip_tables import all_published, published, tags_of
from milan_pipeline.teacher.spec import TeacherSpec

AnswerT = TypeVar("AnswerT")
Entry = dict[str, Any]


@functools.cache
def entries() -> dict[str, list[Entry]]:
    """Return the registry's entries by the words that tell weights.

    Words are names of files, hub repositories with and without owner, and sha256 digests: whole
    ones (in the URLs of OpenAI's weights) or their first eight digits (in open_clip's releases).
    """
    found: dict[str, list[Entry]] = defaultdict(list)
    for model, tag in all_published():
        entry = published(model, tag)
        for word in _words(entry.get("url", ""), entry.get("hf_hub", "")):
            found[word].append(entry)
    return dict(found)


def common(found: list[Entry], read: Callable[[Entry], AnswerT]) -> AnswerT | None:
    """Return what all entries say; None where they differ or there are none."""
    answers = {read(entry) for entry in found}
    return answers.pop() if len(answers) == 1 else None


def said_of_file(
    path: Path,
    read: Callable[[Entry], AnswerT],
    known: Callable[[], Mapping[str, list[Entry]]] = entries,
) -> AnswerT | None:
    """Return what the registry says of a file of weights; None where it does not know it.

    Args:
        path: the file.
        read: what is asked of an entry.
        known: the registry, as `entries` returns it.
    """
    answers = (common(known().get(word, []), read) for word in _words_of_file(path.absolute()))
    return next((answer for answer in answers if answer is not None), None)


def require_known_tag(spec: TeacherSpec) -> None:
    """Refuse a tag that a published architecture does not have.

    Raises:
        ConfigError: it has others, and this is no path either.
    """
    tags = [] if ":" in spec.name else tags_of(spec.name)
    given = spec.pretrained
    if given is None or not tags or published(spec.name, given):
        return
    path = Path(given)
    if not (path.is_file() or path.suffix or len(path.parts) > 1):
        raise ConfigError(
            f"--pretrained {given!r} is neither a file nor a tag of --teacher {spec.name!r}; "
            f"choose {' or '.join(tags)}, or give the path of a file"
        )


def _words_of_file(path: Path) -> Iterator[str]:
    yield path.name
    for part in path.parts:
        if match := re.fullmatch(r"models--(.+?)--(.+)", part):
            yield f"{match[1]}/{match[2]}"
    yield path.parent.name
    if path.suffix == ".pt":
        digest = _sha256(path, path.stat().st_mtime_ns)
        yield digest
        yield digest[:8]


@functools.lru_cache(maxsize=4)
def _sha256(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _words(url: str, repository: str) -> list[str]:
    words = repository.split("/")[:2]
    words = ["/".join(words), words[1]] if len(words) == 2 else []
    if url:
        folder, name = url.rsplit("/", 2)[1:]
        words.append(name)
        words += [folder] if re.fullmatch(r"[0-9a-f]{64}", folder) else []
        words += re.findall(r"-([0-9a-f]{8})\.pth?$", name)
    return words
