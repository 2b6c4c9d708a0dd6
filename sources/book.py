"""The best bid and offer out of one-sided updates of several exchanges, where zero means no update on that side.

The rule where exchanges disagree: a newer quote that crosses an older one proves the older one gone. So the book that
comes out is never crossed, and it heals after an absurd quote with the next genuine one.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Book:
    """Quotes standing per symbol and exchange; best prices over exchanges, sizes summed at the best price.

    `step` takes rows in order and gives the best prices after each; the cut into blocks does not matter. A suspicious
    row goes through with its own values and leaves the book alone.
    """

    def __init__(self) -> None:
        self._standing: Any = np.zeros((0, 0, 4))
        self._exchanges: dict[str, int] = {}

    def exchange_codes(self, names: list[str]) -> Ints:
        """Codes of exchanges, the same for one name throughout the file."""
        return np.array([self._exchanges.setdefault(n, len(self._exchanges)) for n in names] or [0], np.int64)

    def step(self, symbol: Ints, exchange: Ints, quotes: Floats, flags: Ints) -> Floats:
        """`quotes` (rows, 4: bid, ask, bid size, ask size) as they came → the same of the best bid and offer."""
        symbols = max(int(symbol.max(initial=-1)) + 1, self._standing.shape[0])
        exchanges = max(len(self._exchanges), self._standing.shape[1], 1)
        if self._standing.shape[:2] != (symbols, exchanges):
            grown = np.zeros((symbols, exchanges, 4))
            grown[: self._standing.shape[0], : self._standing.shape[1]] = self._standing
            self._standing = grown
        out = np.empty_like(quotes)
        _best(self._standing, symbol, exchange, quotes, flags, out)
        return out


@njit(cache=True, nogil=True)
def _best(standing, symbol, exchange, quotes, flags, out):  # type: ignore[no-untyped-def]
    n_exchanges = standing.shape[1]
    for i in range(len(symbol)):
        if flags[i] & 1:
            out[i, :] = quotes[i, :]
            continue
        book = standing[symbol[i]]
        e = exchange[i]
        for side in range(2):
            price = quotes[i, side]
            if not price > 0.0:
                continue
            book[e, side] = price
            book[e, 2 + side] = quotes[i, 2 + side]
            for x in range(n_exchanges):
                other = book[x, 1 - side]
                if other > 0.0 and ((side == 0 and price > other) or (side == 1 and price < other)):
                    book[x, 1 - side] = 0.0
                    book[x, 3 - side] = 0.0
        bid = 0.0
        ask = 0.0
        bid_size = 0.0
        ask_size = 0.0
        for x in range(n_exchanges):
            b = book[x, 0]
            if b > bid:
                bid = b
                bid_size = book[x, 2]
            elif b > 0.0 and b == bid:
                bid_size += book[x, 2]
            a = book[x, 1]
            if a > 0.0 and (ask == 0.0 or a < ask):
                ask = a
                ask_size = book[x, 3]
            elif a > 0.0 and a == ask:
                ask_size += book[x, 3]
        out[i, 0] = bid
        out[i, 1] = ask
        out[i, 2] = bid_size
        out[i, 3] = ask_size
