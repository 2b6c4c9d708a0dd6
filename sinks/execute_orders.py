"""What the execute flow knows of each order, as the log tells it: its approval, and its last report with the totals.

The log is the only memory: a report that was read back says the same as one that was just written. A claim is a report
`sent`, on the log before the request goes out; until its request cannot arrive any more the order may appear at the venue.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.codec_json import decode_json, encode_json, record_type
from schemas.errors import UserError
from schemas.ids import id_text
from schemas.messages import RUN, Headers, check_version, codec_of, header_text, headers
from schemas.tables import SIDES, Rows, TableSpec
from schemas.tables_desk import ORDER_TYPES
from schemas.tables_live import (
    APPROVED,
    R_ACCEPTED,
    R_CANCELLED,
    R_EXPIRED,
    R_FILLED,
    R_PARTIALLY_FILLED,
    R_REJECTED,
    R_SENT,
    REPORTS,
)
from sinks.execute_chain import Approval, approval_rows
from sinks.execute_log import Message
from sinks.venue import Intent, Seen

FINAL = (R_FILLED, R_CANCELLED, R_REJECTED, R_EXPIRED)
AT_VENUE = (R_ACCEPTED, R_PARTIALLY_FILLED)
WRITER = "writer"
"""Header of a report: which process wrote it."""

Writer = tuple[int, str]
"""Epoch and a word of its own: the greater one took over from the lesser."""


NOT_SEEN = Seen(-1)


@dataclass(slots=True)
class Order:
    """One order. claimed_ns: the machine's time of the last claim whose request may still arrive, anyone's, 0 for none. ts_sent_ns: event
    time of the last claim. claimer: who made it. seen: the totals of the last report. cancel: the desk wants what is open of it
    cancelled. nudge: set where there is something new to do; there once the order is under way."""

    approval: Approval | None = None
    run: str = ""
    offset: int = -1
    written_ms: int = 0
    report_no: int = 0
    state: int = -1
    seen: Seen = NOT_SEEN
    claimed_ns: int = 0
    ts_sent_ns: int = 0
    claimer: Writer = (0, "")
    was_at_venue: bool = False
    cancel: bool = False
    nudge: asyncio.Event | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def client_id(self) -> str:
        return id_text(int(self.row["order_id"]))

    @property
    def row(self) -> Any:
        assert self.approval is not None
        return self.approval.row

    def intent(self) -> Intent:
        """What is to be sent."""
        assert self.approval is not None
        row = self.row
        return Intent(self.client_id, self.approval.symbol, SIDES[int(row["side"])], ORDER_TYPES[int(row["order_type"])],
                      int(row["quantity"]), int(row["limit_price"]), int(row["reference"]), bool(row["reduce_only"]))

    def wake(self) -> None:
        """Let it look at once."""
        if self.nudge is not None:
            self.nudge.set()

    def learn(self, row: Any, written_ns: int, writer: Writer) -> None:
        """Take a report from the log; one that is not newer says nothing new of the order, but a claim is a claim."""
        state = int(row["state"])
        if state == R_SENT and (written_ns > self.claimed_ns or writer != self.claimer):
            self.claimed_ns, self.ts_sent_ns, self.claimer = max(self.claimed_ns, written_ns), int(row["ts_sent_ns"]), writer
        if int(row["report_no"]) <= self.report_no or self.final:
            return
        self.report_no, self.state = int(row["report_no"]), state
        self.seen = Seen(state, int(row["filled"]), int(row["notional"]), int(row["fee"]), bool(row["maker"]))
        self.was_at_venue = self.was_at_venue or state in AT_VENUE


def report_message(order: Order, state: int, seen: Seen, ts_event_ns: int, ts_sent_ns: int, writer: Writer) -> tuple[bytes, Headers]:
    """The next report of an order, as a message. Its `seq` is -1: its place on the tape is where the pipeline reads it."""
    assert order.approval is not None
    rows = REPORTS.empty(1)
    symbol = order.approval.symbol
    rows[0] = (ts_event_ns, -1, 0 if symbol else -1, order.row["order_id"], order.report_no + 1, state, seen.filled, seen.notional,
               seen.fee, seen.maker, ts_sent_ns)
    made = headers(REPORTS, "json", order.run)
    return encode_json(REPORTS, rows, (symbol,))[0], [*made, (WRITER, f"{writer[0]}-{writer[1]}".encode())]


def read_approvals(messages: Sequence[Message]) -> list[tuple[Message, Approval | UserError, str]]:
    """Each message with its record and run, or with what is wrong with it."""
    return [(m, found if isinstance(found, UserError) else approval_rows([found[1]], found[0])[0], header_text(m.headers, RUN))
            for m, found in zip(messages, _decoded(APPROVED, messages), strict=True)]


def read_reports(messages: Sequence[Message]) -> list[tuple[Message, Any, Writer]]:
    """Each message with its row, or what is wrong with it, and its writer."""
    return [(m, found if isinstance(found, UserError) else found[0][0], _writer(m.headers))
            for m, found in zip(messages, _decoded(REPORTS, messages), strict=True)]


def _writer(given: Headers) -> Writer:
    epoch, _, word = header_text(given, WRITER).partition("-")
    return (int(epoch) if epoch.isdigit() else 0, word)


def _decoded(spec: TableSpec, messages: Sequence[Message]) -> list[tuple[Rows, tuple[str, str]] | UserError]:
    """One row and its (symbol, strategy) names for each message, or the error."""
    decoder = msgspec.json.Decoder(record_type(spec))
    checked: list[Any] = []
    for m in messages:
        try:
            check_version(spec, m.headers)
            if codec_of(m.value, m.headers) != "json":
                raise UserError(f"the topic {spec.name} holds JSON, one object a message")
            checked.append(decoder.decode(m.value))
        except UserError as error:
            checked.append(error)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            checked.append(UserError(str(error)))
    good = [(m, r) for m, r in zip(messages, checked, strict=True) if not isinstance(r, UserError)]
    rows = _rows(spec, good)
    return [r if isinstance(r, UserError) else next(rows) for r in checked]


def _rows(spec: TableSpec, good: list[tuple[Message, Any]]) -> Any:
    """The rows of messages that are JSON of the right shape; where a value is wrong, message by message, to say which."""
    symbols = tuple(dict.fromkeys(r.symbol for _, r in good if r.symbol))
    strategies = tuple(dict.fromkeys(getattr(r, "strategy", "") for _, r in good if getattr(r, "strategy", "")))
    try:
        rows = decode_json(spec, [m.value for m, _ in good], symbols, strategies)
    except UserError as error:
        if len(good) == 1:
            yield error
        else:
            for one in good:
                yield from _rows(spec, [one])
        return
    for k, (_, record) in enumerate(good):
        yield rows[k : k + 1], (record.symbol, getattr(record, "strategy", ""))
