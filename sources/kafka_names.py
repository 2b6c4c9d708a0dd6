"""`Interner`: names and their codes, for Python and, as a hash table in arrays, for compiled code.

Codes are 0, 1, 2, … in the order in which names were first seen; they only grow and never change. There are at most
`limit`, since a topic that anyone writes to could otherwise fill the memory.
"""

from typing import Any

import numpy as np

from schemas.codec import NO_NAME
from schemas.errors import UserError
from sources.kafka_json import NAME_BYTES_MAX, NAME_SLOT_WORDS, mixed

LIMIT = 65_536
NAME_LENGTH_MAX = 128
SLOTS = 64
"""Of the hash table to begin with; it doubles when it is half full."""


class Interner:
    """Names and their codes. "" has none: it is `NO_NAME`. slots, codes: the hash table that `kafka_json.parse` looks them up in."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._codes: dict[str, int] = {}
        self._names: tuple[str, ...] = ()
        self._cleared(SLOTS)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, by code: what `Frame.symbols` takes. The same object until a name is added."""
        if len(self._names) != len(self._codes):
            self._names = tuple(self._codes)
        return self._names

    def __len__(self) -> int:
        return len(self._codes)

    def find(self, name: str) -> int | None:
        """The code of a name, None where it has none yet."""
        return NO_NAME if name == "" else self._codes.get(name)

    def check(self, name: str) -> None:
        """UserError where the name could not be given a code."""
        if self.find(name) is not None:
            return
        if len(name) > NAME_LENGTH_MAX:
            raise UserError(f'the name "{name[:20]}…" has {len(name)} characters; at most {NAME_LENGTH_MAX} are taken')
        if not name.isprintable():
            raise UserError(f"the name {name!r} holds characters that cannot be shown")
        if len(self._codes) >= self.limit:
            raise UserError(f'"{name}" would be name {self.limit + 1}; at most {self.limit} different ones are taken')

    def code(self, name: str) -> int:
        """The code of a name, which is added where it is new; UserError where it cannot be."""
        found = self.find(name)
        if found is not None:
            return found
        self.check(name)
        self._add(name)
        return len(self._codes) - 1

    def snapshot(self) -> tuple[str, ...]:
        """The names, for `restore`."""
        return self.names

    def restore(self, state: tuple[str, ...]) -> None:
        """These names and no others, with the codes they had."""
        self._codes, self._names = {}, ()
        self._cleared(SLOTS)
        for name in state:
            self._add(name)

    def _add(self, name: str) -> None:
        self._codes[name] = len(self._codes)
        if 2 * len(self._codes) > len(self.codes):
            self._cleared(2 * len(self.codes))
            for known in self._codes:
                self._place(known)
        else:
            self._place(name)

    def _cleared(self, n: int) -> None:
        self.slots = np.zeros((n, NAME_SLOT_WORDS), np.uint64)
        self.codes = np.full(n, -1, np.int64)

    def _place(self, name: str) -> None:
        raw = name.encode(errors="surrogatepass")
        if len(raw) > NAME_BYTES_MAX:
            return  # found by `find` alone
        row: Any = np.empty(NAME_SLOT_WORDS, np.uint64)
        row[0] = len(raw)
        row[1:] = np.frombuffer(raw.ljust(NAME_BYTES_MAX, b"\0"), "<u8")
        slot = int(mixed(*row)) & (len(self.codes) - 1)
        while self.codes[slot] >= 0:
            slot = (slot + 1) & (len(self.codes) - 1)
        self.slots[slot], self.codes[slot] = row, self._codes[name]
