"""Tables that are read when they are first asked for, and kept while they are in use."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

KEPT_USES = 16384
"""A table is dropped after this many uses of other tables. A lane reads from a few shards at
a time, so it uses each of their tables every few samples."""
KeyT = TypeVar("KeyT", bound=Hashable)
TableT = TypeVar("TableT")


class RecentTables(Generic[KeyT, TableT]):
    """Reads tables by key, each once while it is in use. Threads may share it.

    Args:
        read: reads a table; what it raises is raised to all that wait for this table.
        kept_uses: how many times others may be asked for before a table is dropped.
    """

    def __init__(self, read: Callable[[KeyT], TableT], *, kept_uses: int = KEPT_USES) -> None:
        self._read = read
        self._kept_uses = kept_uses
        self._uses = 0
        self._lock = threading.Lock()
        self._tables: OrderedDict[KeyT, tuple[Future[TableT], int]] = OrderedDict()

    def __getitem__(self, key: KeyT) -> TableT:
        with self._lock:
            self._uses += 1
            known = self._tables.pop(key, None)
            table = Future[TableT]() if known is None else known[0]
            self._tables[key] = table, self._uses
            oldest = next(iter(self._tables))
            while self._tables[oldest][1] < self._uses - self._kept_uses:
                del self._tables[oldest]
                oldest = next(iter(self._tables))
        if known is None:
            try:
                table.set_result(self._read(key))
            except BaseException as error:  # noqa: BLE001 - raised below, here and where others wait
                with self._lock:  # what failed for a while is read again when next asked for
                    self._tables.pop(key, None)
                table.set_exception(error)
        return table.result()
