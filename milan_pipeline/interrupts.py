"""Stop at a good point when the scheduler asks: SIGTERM and SIGUSR1 set a flag, no more."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from milan_pipeline.errors import InterruptedRunError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def spread(self, most: Callable[[float], float]) -> None:
        """Ask for a stop here if any process of the run was asked; every process must come here.

        Args:
            most: returns the largest of all processes' values.
        """
        number = most(signal.Signals[self.signal_name] if self.signal_name else 0)
        self.signal_name = signal.Signals(int(number)).name if number else None

    def raise_if_asked(self, what_is_kept: str) -> None:
        """End the stage if a stop was asked for.

        Raises:
            InterruptedRunError: a stop signal came.
        """
        if self.signal_name is not None:
            raise InterruptedRunError(
                f"{self.signal_name} received; {what_is_kept}; run the same command to go on"
            )


@contextlib.contextmanager
def stop_request(*, then_ignore: bool = False) -> Iterator[StopRequest]:
    """Listen for stop signals inside the block (in the main thread; elsewhere none can come).

    Args:
        then_ignore: turn a deaf ear to them after the block. A process whose launcher signals all
            that are left when the first one ends shall still end with its own exit code.
    """
    request = StopRequest()

    def note(number: int, _: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if then_ignore else handler)
