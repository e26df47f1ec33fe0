"""Waiting for the hub of weights: one line, whatever its client would print."""

import contextlib
import logging
from collections.abc import Iterator

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
        with waiting(f"waiting for the hub ({what})"):
            yield
    finally:
        client.removeFilter(retries)
        logging.root.removeFilter(_is_new)
        if retries.count:
            logger.log(NOTE, "The hub did not answer, and was asked again %d times", retries.count)
