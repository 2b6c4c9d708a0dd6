"""What an external venue is asked: one record per request, numbered without holes, each hashed with all before it.

digest(n) = BLAKE3(digest(n - 1) + record n): zeros before the first; a record is its columns in order, eight bytes each, without
the digest columns, with the symbol and strategy codes replaced by ids of their names. Nothing else writes an approval, so a record
that does not follow from the one before it was not approved here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from operators.compiled import inner
from operators.desk.audit import canonical
from operators.desk.state import APPROVED_N, Desk, Out
from schemas.errors import PenstockError
from schemas.tables import Rows
from schemas.tables_desk import LIMIT, MARKET, STOP_LIMIT
from schemas.tables_live import APPROVED, PLACE_REQUEST

DIGESTS = ("digest_0", "digest_1", "digest_2", "digest_3")
FIRST = bytes(32)
"""What the first record follows from."""
_SIGNED = [f.name for f in APPROVED.fields if f.name not in DIGESTS]


@inner
def ask_venue(desk: Desk, out: Out, slot: int, request: int, quantity: int, ts: int, seq: int) -> None:
    """Write the approval of the order in `slot`. Its digest follows when the step is done."""
    a = desk.account[0]
    o = desk.orders[slot]
    s = desk.symbols[o.symbol]
    resting = o.order_type == LIMIT or o.order_type == STOP_LIMIT
    a.approval_no += 1
    row = out.approved[out.n[APPROVED_N]]
    out.n[APPROVED_N] += 1
    row.ts_event_ns = ts
    row.seq = seq
    row.symbol = o.symbol
    row.strategy = o.strategy
    row.approval_no = a.approval_no
    row.decision_no = o.decision_no
    row.order_id = o.order_id
    row.request = request
    row.order_type = LIMIT if resting else MARKET
    row.side = 1 if o.side > 0 else 2
    # strategies on opposite sides share one position at the venue: it refuses to reduce what is smaller than the exit
    net = s.net if o.side < 0 else -s.net
    row.reduce_only = 1 if o.reduce_only == 1 and net >= o.quantity else 0
    row.quantity = quantity if request == PLACE_REQUEST else 0
    row.limit_price = o.limit_price if resting else 0
    row.reference = s.last


def chain(rows: Rows, previous: bytes, symbol_ids: npt.NDArray[np.uint64], strategy_ids: npt.NDArray[np.uint64]) -> list[bytes]:
    """The digest of each record, in order; `previous` is the digest of the record before the first."""
    if not len(rows):
        return []
    words = canonical(APPROVED, rows, symbol_ids, strategy_ids, whole=True)[:, : len(_SIGNED)]
    out: list[bytes] = []
    for record in words:
        previous = blake3(previous + record.tobytes()).digest()
        out.append(previous)
    return out


def sign(rows: Rows, digests: list[bytes]) -> None:
    """Write the digests into the records."""
    quarters = np.frombuffer(b"".join(digests), "<u8").reshape(len(rows), 4)
    for k, name in enumerate(DIGESTS):
        rows[name] = quarters[:, k]


def verify_next(previous: bytes, row: Any, symbol_id: int, strategy_id: int) -> bytes:
    """The digest of a record, which the next one follows from; PenstockError where the record does not follow from `previous`.

    row: a record of APPROVED, or a mapping of its columns to the same integers; the ids are those of its names (`schemas.ids.name_id`).
    """
    names: Mapping[str, int] = {"symbol": symbol_id, "strategy": strategy_id}
    words = [int(names.get(name, row[name])) & 0xFFFF_FFFF_FFFF_FFFF for name in _SIGNED]
    digest = blake3(previous + np.array(words, "<u8").tobytes()).digest()
    if digest != recorded(row):
        raise PenstockError(f"approval {int(row['approval_no'])} does not follow from the one before it: it was changed, or one is missing")
    return digest


def recorded(row: Any) -> bytes:
    """The digest that a record carries."""
    return np.array([int(row[name]) for name in DIGESTS], "<u8").tobytes()
