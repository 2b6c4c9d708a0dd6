"""The tables of a running pipeline: what it took from the log and in which order, what goes to a venue, what comes back.

`journal` is the order in which the desk was given its input. `approved` is what the gate lets out to a venue that is not the
paper one, `reports` is what that venue says; both carry the chain of digests that says that no one else wrote them.
"""

from schemas.tables import SIDES, Field, TableSpec, _when
from schemas.tables_desk import ORDER_TYPES

INPUTS = ("trades", "quotes", "recorded", "beats", "funding", "control", "reports", "promotions")
"""Tables that a pipeline takes from the log, by the code of `JOURNAL.input`."""

REPORT_STATES = ("sent", "accepted", "partially_filled", "filled", "cancelled", "rejected", "expired", "unknown")
R_SENT, R_ACCEPTED, R_PARTIALLY_FILLED, R_FILLED, R_CANCELLED, R_REJECTED, R_EXPIRED, R_UNKNOWN = range(8)
"""sent: on its way. unknown: a timeout or a 5xx, the venue is being asked. expired: too old to be sent, so it never was."""

REQUESTS = ("place", "cancel")
PLACE_REQUEST, CANCEL_REQUEST = range(2)

JOURNAL = TableSpec("journal", "What the pipeline was given: one row per frame and log partition that gave it messages.",
                    ("frame_no", "start_ns", "input", "partition"), (
    Field("frame_no", "int", "0, 1, 2, … of the run"),
    Field("input", "enum", "which topic", INPUTS),
    Field("partition", "int", "partition of the topic"),
    Field("offset_from", "int", "first message taken"),
    Field("offset_to", "int", "one past the last message taken"),
    Field("parts", "int", "rows that the frame has in the journal"),
    Field("start_ns", "time", "start of the process that wrote it, by the machine's clock; with frame_no -1 the row says only that"),
    Field("skip", "int", "1: the wait for a missing sequence number was given up before this frame"),
    Field("ts_event_ns", "time", "the frame's frontier"),
    Field("first_seq", "int", "tape position of the frame's first row"),
    Field("rows", "int", "rows that the frame gave to the operators"),
))

APPROVED = TableSpec("approved", "Orders that the gate approved, for a venue to execute. approval_no has no gaps.", ("approval_no",), (
    *_when("the approval"),
    Field("strategy", "strategy", "whose"),
    Field("approval_no", "int", "1, 2, 3, … of the account"),
    Field("decision_no", "int", "the decision, or the decision of the entry whose bracket this is"),
    Field("order_id", "id", "client order id"),
    Field("request", "enum", "place the order, or cancel what is open of it; a cancel has quantity 0", REQUESTS),
    Field("order_type", "enum", "market or limit: stops and targets are watched by the desk", ORDER_TYPES),
    Field("side", "enum", "buy or sell", SIDES),
    Field("reduce_only", "bool", "whether it may only make a position smaller"),
    Field("quantity", "money", "base units, positive"),
    Field("limit_price", "money", "limit, 0 for none"),
    Field("reference", "money", "last price known to the desk"),
    Field("digest_0", "id", "BLAKE3 of the digest before and this record, first quarter"),
    Field("digest_1", "id", "second quarter"),
    Field("digest_2", "id", "third quarter"),
    Field("digest_3", "id", "fourth quarter"),
))

REPORTS = TableSpec("reports", "What a venue says of an order. Quantities are totals, so a report that is read twice does nothing.",
                    ("order_id", "report_no"), (
    *_when("the report"),
    Field("order_id", "id", "client order id"),
    Field("report_no", "int", "1, 2, 3, … of the order"),
    Field("state", "enum", "state of the order at the venue", REPORT_STATES),
    Field("filled", "money", "base units filled in all"),
    Field("notional", "money", "quote units paid or received in all, positive"),
    Field("fee", "money", "quote units in all; negative is a rebate"),
    Field("maker", "bool", "whether the last fill rested"),
    Field("ts_sent_ns", "time", "when the order was sent, 0 where it was not"),
))

DEAD_LETTER = TableSpec("dead_letter", "Messages that could not be read. Nothing is dropped without a row here.",
                        ("topic", "partition", "offset"), (
    Field("ts_seen_ns", "time", "when it was read, by the machine's clock"),
    Field("topic", "text", "topic"),
    Field("partition", "int", "partition"),
    Field("offset", "int", "offset"),
    Field("error", "text", "what is wrong with it"),
    Field("payload", "text", "the raw bytes, in base64"),
))
