"""The chain of approvals: an order may be sent only where its record follows from the one before it.

digest(n) = BLAKE3(digest(n - 1) + record n): zeros before the first, and a record is its columns in order, eight bytes each,
little-endian, without the digest columns, with symbol and strategy replaced by ids of their names. Each run of a pipeline has
a chain of its own; one that was followed by another run's is closed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from schemas.errors import PenstockError
from schemas.ids import name_id
from schemas.tables import Rows
from schemas.tables_live import APPROVED

DIGEST_BYTES = 32
_RECORD_BYTES = APPROVED.dtype.itemsize - DIGEST_BYTES


class ChainBroken(PenstockError):
    """A record that does not follow from those before it; the text says why."""


@dataclass(frozen=True)
class Approval:
    """One record of `approved`. row: a structured scalar whose symbol and strategy are codes 0, or -1 for none."""

    row: Any
    symbol: str
    strategy: str


def approval_rows(names: list[tuple[str, str]], rows: Rows) -> list[Approval]:
    """Rows with their (symbol, strategy) names."""
    out = rows.copy()
    for k, (symbol, strategy) in enumerate(names):
        out["symbol"][k] = 0 if symbol else -1
        out["strategy"][k] = 0 if strategy else -1
    return [Approval(out[k], symbol, strategy) for k, (symbol, strategy) in enumerate(names)]


def canonical(approval: Approval) -> bytes:
    """The record's bytes, which do not depend on how names were coded."""
    one = np.array([approval.row], APPROVED.dtype)
    for column, name in (("symbol", approval.symbol), ("strategy", approval.strategy)):
        if name:
            one[column] = np.array([name_id(name)], np.uint64).view(np.int64)
    return one.tobytes()[:_RECORD_BYTES]


def claimed_digest(approval: Approval) -> bytes:
    """The digest that the record carries."""
    return np.array([approval.row[f"digest_{k}"] for k in range(4)], "<u8").tobytes()


def digest_of(previous: bytes, approval: Approval) -> bytes:
    """The digest that follows from the one before it and the record."""
    return blake3(previous + canonical(approval)).digest()


def verify_approval(previous: bytes, approval: Approval) -> bytes:
    """The record's digest, checked; ChainBroken where it is not what follows from `previous`."""
    digest = digest_of(previous, approval)
    if digest != claimed_digest(approval):
        raise ChainBroken(f"approval {approval.row['approval_no']} does not follow from the one before it: its digest is "
                          f"{claimed_digest(approval).hex()[:16]}…, the record gives {digest.hex()[:16]}…")
    return digest


class ApprovalChain:
    """What was verified so far, of all runs."""

    def __init__(self) -> None:
        self.run = ""
        self.count = 0
        self._digests = bytearray()
        self._closed: set[str] = set()

    @property
    def head(self) -> bytes:
        """The last digest."""
        return bytes(self._digests[-DIGEST_BYTES:]) or bytes(DIGEST_BYTES)

    def take(self, approval: Approval, run: str) -> bool:
        """True for the next record, False for one that was already taken; ChainBroken for everything else."""
        number = int(approval.row["approval_no"])
        if run != self.run or not self.count:
            self._begin(run, number)
        if 1 <= number <= self.count:
            held, before = self._digest(number), self._digest(number - 1)
            if not claimed_digest(approval) == held == digest_of(before, approval):
                raise ChainBroken(f"approval {number} is there twice with different contents")
            return False
        if number != self.count + 1:
            raise ChainBroken(f"approval {number} comes after approval {self.count}: "
                              f"{'those between are missing' if number > 0 else 'a number is 1 or more'}")
        self._digests += verify_approval(self.head, approval)
        self.count = number
        return True

    def _digest(self, number: int) -> bytes:
        return bytes(self._digests[(number - 1) * DIGEST_BYTES : number * DIGEST_BYTES]) if number else bytes(DIGEST_BYTES)

    def _begin(self, run: str, number: int) -> None:
        if run in self._closed:
            raise ChainBroken(f'run "{run}" approves again after run "{self.run}" took over: two pipelines trade this account')
        if number != 1:
            raise ChainBroken(f'run "{run}" begins with approval {number} and not with 1: those before are missing')
        if self.count:
            self._closed.add(self.run)
        self.run, self.count, self._digests = run, 0, bytearray()
