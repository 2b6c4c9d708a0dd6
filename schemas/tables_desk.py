"""The tables of the money side: what was proposed, decided, ordered, filled, booked, held and audited.

Amounts, prices and quantities are int64 in 1e-8; every row carries the time and tape position of the row that caused it.
"""

from schemas.tables import ACTIONS, SIDES, Field, TableSpec, _when

TRADING_STATES = ("disabled", "active", "reducing", "halted")
DISABLED, ACTIVE, REDUCING, HALTED = 0, 1, 2, 3
"""disabled: nothing is sent. active: all. reducing: exits only. halted: only the desk's own flattening."""

LIMITS = (
    "trading_state", "conflict", "position_state", "stale_price", "drawdown", "daily_loss", "weekly_loss", "daily_trades",
    "cooldown", "open_positions", "open_orders", "lot", "notional_min", "position_risk", "position_notional", "exposure",
    "heat", "cash", "validation",
)
"""Every limit of the gate, in the order in which it is asked; the first that refuses gives the reason. conflict: another strategy's
position was in the way; validation: the signal validator refused; both were said before by the strength of the signal, 0 and -1."""
REASONS = ("approved", *LIMITS)

CAUSES = ("entry", "exit", "stop", "target", "hold", "flatten", "manual")
CAUSE_FLATTEN = 5

ORDER_TYPES = ("market", "limit", "stop", "stop_limit", "take_profit", "trailing_stop")
MARKET, LIMIT, STOP, STOP_LIMIT, TAKE_PROFIT, TRAILING_STOP = range(6)

ORDER_STATES = ("new", "accepted", "triggered", "partially_filled", "filled", "cancelled", "rejected", "expired",
                "sent", "unknown")
NEW, ACCEPTED, TRIGGERED, PARTIALLY_FILLED, FILLED, CANCELLED, REJECTED_ORDER, EXPIRED, SENT, UNKNOWN = range(10)
"""sent, unknown: with an external venue. sent: approved and handed over. unknown: nobody knows, so nothing may be assumed."""

ACCOUNTS = ("cash", "position", "fees", "funding", "realised", "capital")
CASH, POSITION, FEES, FUNDING, REALISED, CAPITAL = range(6)

COMMANDS = ("enable", "disable", "reduce", "halt")

CONTROL = TableSpec("control", "Steering as data: a command takes effect at its place on the tape.", ("ts_event_ns", "seq"), (
    *_when("the command"),
    Field("command", "enum", "what to do", COMMANDS),
))

FUNDING_RATES = TableSpec("funding", "Funding of perpetuals: paid by longs to shorts where positive.",
                          ("symbol", "ts_event_ns"), (
    *_when("the payment"),
    Field("rate", "float", "fraction of the position's notional"),
    Field("mark", "float", "mark price, 0 for the last price"),
))

_STRATEGY = Field("strategy", "strategy", "whose")

DECISIONS = TableSpec("decisions", "One per proposal: approved or refused, with the verdict of every limit.", ("decision_no",), (
    *_when("the decision"),
    _STRATEGY,
    Field("decision_no", "int", "1, 2, 3, … of the account"),
    Field("order_id", "id", "hash of account, strategy, symbol, bar end, action, slot"),
    Field("action", "enum", "what was proposed", ACTIONS),
    Field("cause", "enum", "the clause that proposed it", CAUSES),
    Field("slot", "int", "the signal's slot on its bar"),
    Field("ts_open_ns", "time", "open time of the signal's bar"),
    Field("interval_ns", "int", "timeframe of the signal's bar"),
    Field("approved", "bool", "whether the gate let it through"),
    Field("reason", "enum", "approved, or the first limit that refused", REASONS),
    Field("trading_state", "enum", "state of trading at that moment", TRADING_STATES),
    Field("policy_version", "int", "version of the policy in force"),
    Field("quantity", "money", "signed base units that were sized"),
    Field("price", "money", "reference price: the last price known"),
    Field("stop", "money", "protective stop, 0 for none"),
    Field("target", "money", "take-profit, 0 for none"),
    Field("equity", "money", "account equity at that moment"),
    Field("verdicts", "ints", "per limit: 0 not applicable, 1 passed, 2 refused", width=len(LIMITS)),
    Field("observed", "ints", "per limit: what was measured", width=len(LIMITS)),
    Field("bounds", "ints", "per limit: what was allowed", width=len(LIMITS)),
))

ORDERS = TableSpec("orders", "Every state that every order went through.", ("order_id", "event_no"), (
    *_when("the state"),
    _STRATEGY,
    Field("order_id", "id", "client order id"),
    Field("parent_id", "id", "the entry that a bracket's exit belongs to, or 0"),
    Field("event_no", "int", "1, 2, 3, … of the account"),
    Field("order_type", "enum", "type", ORDER_TYPES),
    Field("state", "enum", "state it came into", ORDER_STATES),
    Field("side", "enum", "buy or sell", SIDES),
    Field("cause", "enum", "the clause that wanted it", CAUSES),
    Field("quantity", "money", "base units ordered"),
    Field("filled", "money", "base units filled so far"),
    Field("limit_price", "money", "limit, 0 for none"),
    Field("stop_price", "money", "trigger, 0 for none"),
    Field("ts_active_ns", "time", "when it reaches the venue"),
))

FILLS = TableSpec("fills", "Executions.", ("fill_no",), (
    *_when("the execution"),
    _STRATEGY,
    Field("fill_no", "int", "1, 2, 3, … of the account"),
    Field("order_id", "id", "client order id"),
    Field("side", "enum", "buy or sell", SIDES),
    Field("quantity", "money", "base units"),
    Field("price", "money", "price paid or received"),
    Field("reference", "money", "market price that it was filled from"),
    Field("fee", "money", "quote units; negative is a rebate"),
    Field("realised", "money", "profit or loss that it realised, before its fee"),
    Field("maker", "bool", "whether it rested"),
    Field("cause", "enum", "the clause that wanted it", CAUSES),
    Field("closed", "bool", "whether it left the strategy flat in the symbol"),
    Field("trade_pnl", "money", "where closed: what the round trip made after fees, else 0"),
    Field("ts_entry_ns", "time", "when the position that it changed was opened"),
))

LEDGER = TableSpec("ledger", "Double entry: `amount` goes from the credited to the debited account.", ("entry_no",), (
    *_when("the booking"),
    _STRATEGY,
    Field("entry_no", "int", "1, 2, 3, … of the account"),
    Field("debit", "enum", "account that receives", ACCOUNTS),
    Field("credit", "enum", "account that gives", ACCOUNTS),
    Field("amount", "money", "quote units, not negative"),
    Field("fill_no", "int", "the fill that caused it, or 0"),
))

POSITIONS = TableSpec("positions", "A strategy's position in a symbol after each change.", ("position_no",), (
    *_when("the change"),
    _STRATEGY,
    Field("position_no", "int", "1, 2, 3, … of the account"),
    Field("quantity", "money", "signed base units"),
    Field("cost", "money", "signed quote units paid for them"),
    Field("entry_price", "money", "average entry price, 0 when flat"),
    Field("mark", "money", "last price"),
    Field("stop", "money", "protective stop, 0 for none"),
    Field("target", "money", "take-profit, 0 for none"),
    Field("realised", "money", "realised so far, before fees"),
    Field("unrealised", "money", "at the mark"),
    Field("fees", "money", "paid so far"),
))

EQUITY = TableSpec("equity", "The account at regular event times.", ("ts_event_ns",), (
    *_when("the sample"),
    Field("equity", "money", "cash plus positions at the last prices"),
    Field("cash", "money", "quote units"),
    Field("exposure", "money", "gross notional of the positions"),
    Field("realised", "money", "realised so far, before fees"),
    Field("fees", "money", "fees so far"),
    Field("funding", "money", "funding paid so far"),
    Field("drawdown", "money", "distance from the highest equity"),
    Field("positions", "int", "open positions"),
    Field("trading_state", "enum", "state of trading", TRADING_STATES),
))

AUDIT = TableSpec("audit", "Hash chain: one row per block of records of one stream.", ("stream", "block_no"), (
    *_when("the block's last record"),
    Field("stream", "enum", "which records", (
        "trades", "quotes", "bars", "signals", "control", "funding", "decisions", "orders", "fills", "ledger", "positions", "equity",
        "approved", "reports",
    )),
    Field("block_no", "int", "0, 1, 2, … of the stream"),
    Field("records", "int", "records in the block"),
    Field("digest_0", "id", "BLAKE3 of the digest before and the block, first quarter"),
    Field("digest_1", "id", "second quarter"),
    Field("digest_2", "id", "third quarter"),
    Field("digest_3", "id", "fourth quarter"),
))

RUNS = TableSpec("runs", "One row per state of a run.", ("state",), (
    Field("ts_started_ns", "time", "when it started, by the machine's clock"),
    Field("state", "text", "running, done, aborted or failed"),
    Field("command", "text", "the command line"),
    Field("config", "text", "configuration as JSON"),
    Field("policy", "text", "policy as YAML"),
    Field("strategies", "text", "strategies as YAML"),
    Field("feature_names", "text", "names of the feature columns per timeframe, as JSON"),
    Field("data", "text", "what was replayed: paths, range, hash, as JSON"),
    Field("summary", "text", "the summary as JSON"),
))

MARKET_TABLES = ("trades", "quotes", "beats", "recorded", "bars", "late", "rejected", "signals")
DESK_TABLES = ("decisions", "orders", "fills", "ledger", "positions", "equity", "audit")
