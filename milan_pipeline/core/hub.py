"""Waiting for the hub of weights: one line, whatever its client would print."""

import contextlib
import importlib
import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from milan_pipeline.core.console import NOTE
from milan_pipeline.core.progress import waiting

CLIENT = "huggingface_hub.utils._http"
"""The logger of the hub's client, which prints two lines before it tries again."""
RETRY = "Retrying in"
REPEATED = "Failed to download weights"
"""How open_clip begins to print, by the root logger, what its error says as well."""

logger = logging.getLogger(__name__)


class _Retries(logging.Filter):
    """Counts what the client says of tries that failed, and keeps it from being printed."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing pass but errors."""
        self.count += record.getMessage().startswith(RETRY)
        return record.levelno >= logging.ERROR


def _is_new(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(REPEATED)


def _has_no_such_host(url: str) -> bool:
    """Whether no host has the name in a URL, and no proxy would know better.

    A name server that does not answer may do so the next time; one that knows no such name won't.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.hostname is None or {parts.scheme, "all"} & urllib.request.getproxies().keys():
        return False
    try:
        socket.getaddrinfo(parts.hostname, None)
    except socket.gaierror as error:
        return error.errno == socket.EAI_NONAME
    except (OSError, UnicodeError):
        return False
    return False


@contextlib.contextmanager
def _cache_alone() -> Iterator[None]:
    """Look into the hub's cache alone where there is no network, as each file costs 24 seconds."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    if not before and _has_no_such_host(constants.ENDPOINT):
        host = urllib.parse.urlsplit(constants.ENDPOINT).hostname
        logger.log(NOTE, "No network knows %s, so weights are looked for in its cache alone", host)
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def asking_hub(what: str) -> Iterator[None]:
    """Show a clock while the hub is asked; then say how often it had to be asked again.

    Args:
        what: is asked for.
    """
    retries, client = _Retries(), logging.getLogger(CLIENT)
    client.addFilter(retries)
    logging.root.addFilter(_is_new)
    try:
        with _cache_alone(), waiting(f"waiting for the hub ({what})"):
            yield
    finally:
        client.removeFilter(retries)
        logging.root.removeFilter(_is_new)
        if retries.count:
            logger.log(NOTE, "The hub did not answer, and was asked again %d times", retries.count)
