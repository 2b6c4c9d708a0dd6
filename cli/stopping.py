"""How a command that runs on is asked to end: SIGTERM, or Ctrl-C.

What was begun is finished: the first signal only asks. A second Ctrl-C ends the process at once, and the handlers from
before are put back in the end.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping(asked: threading.Event | None = None) -> Iterator[threading.Event]:
    """Set `asked`, or an event of its own, on SIGTERM and Ctrl-C."""
    stop = asked or threading.Event()

    def ask(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
