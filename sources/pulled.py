"""An iterator that runs ahead in a thread of its own, a bounded number of items; what it raises is raised where it is taken.

Items come in their order. `stop` ends it between two items, also where nobody takes them any more.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
_PUT_S = 0.2


class Pulled(Generic[Item]):
    """items: what to run. ahead: how many of them may wait."""

    def __init__(self, items: Iterator[Item], stop: threading.Event, ahead: int = 64) -> None:
        self.ended = False
        self._items, self._stop = items, stop
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ahead)
        threading.Thread(target=self._run, name="source", daemon=True).start()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item, None)
                if self._stop.is_set():
                    break
            self._put(None, None)
        except BaseException as error:  # carried to the thread that takes
            self._put(None, error)

    def _put(self, item: Item | None, error: BaseException | None) -> None:
        while True:
            try:
                self._queue.put((item, error), timeout=_PUT_S)
                return
            except queue.Full:
                if self._stop.is_set():
                    return

    def take(self, most: int, timeout_s: float = 0.0) -> list[Item]:
        """What is there, at most so many, waiting for the first at most so long."""
        out: list[Item] = []
        while len(out) < most and not self.ended:
            try:
                item, error = self._queue.get(timeout=timeout_s) if timeout_s > 0 and not out else self._queue.get_nowait()
            except queue.Empty:
                break
            if error is not None:
                raise error
            if item is None:
                self.ended = True
            else:
                out.append(item)
        return out
