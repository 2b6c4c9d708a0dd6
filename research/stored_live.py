"""What a live run does not record of itself, from its stored tables: its figures, its symbols, the ticks of its bars.

A run on a broker takes its input from topics that other runs read too. So that input is stored once, as the run `market`,
under its writers' numbers and not under the run's tape positions: what is found there is found by symbol and time, and says so.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from research.recording import config_of
from research.summary import Summary
from schemas.codec import from_arrow
from schemas.ddl import RUN_ID
from schemas.frame import Frame
from schemas.money import to_decimal
from schemas.policy import compile_policy
from schemas.tables import BARS, QUOTES, SIGNALS, TRADES, TableSpec
from schemas.tables_desk import DECISIONS, EQUITY, FILLS
from schemas.tables_live import INPUTS
from schemas.topics import TOPICS
from sinks.clickhouse import query_arrow
from sources.kafka_unpack import MARKET

if TYPE_CHECKING:
    from research.stored import StoredRun

BY_POSITION, BY_TIME = "tape position", "symbol, time and price"
"""How the ticks of a bar were found."""


def is_live(data: Mapping[str, Any]) -> bool:
    """Whether a run is one that `penstock run` made, by what it recorded of its input."""
    return "shards" in data


def symbols_of(run: "StoredRun") -> tuple[str, ...]:
    """The names in a live run's tables: one that was not stopped has recorded none."""
    tables = ("trades", "quotes", "bars", "rejected", "decisions")
    each = " UNION DISTINCT ".join(f"SELECT DISTINCT symbol FROM {name} WHERE {RUN_ID} = {{r:String}}" for name in tables)
    found = {str(s) for s in run.query(each)["symbol"].to_pylist()} - {"", *run.data["symbols"]}
    return (*run.data["symbols"], *sorted(found))


def unverifiable(run: "StoredRun", spec: TableSpec) -> str:
    """Why the records of a stream cannot be hashed again from the warehouse; empty where they can."""
    if run.data.get("kafka") and spec.name in INPUTS:
        return "not stored under the run: its input is on topics, under its writers' numbers"
    if is_live(run.data) and spec in (BARS, SIGNALS) and len(run.symbols) > len(run.data["symbols"]):
        return "in the order of the run's instruments, which a run records when it stops"
    return ""


def live_summary(run: "StoredRun") -> dict[str, Any]:
    """The figures of a live run as far as it is stored, in the words of a replay's summary. No hashes: `penstock parity` compares it.

    The equity is that of the last sample. There is no speed: a live run takes as long as the market does.
    """
    figures = Summary(run.plan.config.policy)
    tables = {spec.name: from_arrow(spec, run.table(spec), run.symbols, run.plan.names) for spec in (DECISIONS, FILLS, EQUITY)}
    figures.add(Frame("stored", 0, 0, run.symbols, tables))
    samples = tables["equity"]
    each = " UNION ALL ".join(f"SELECT '{name}' AS name, count() AS n FROM {name} FINAL WHERE {RUN_ID} = {{r:String}}" for name in TOPICS)
    counts = {str(row["name"]): int(row["n"]) for row in run.query(each).to_pylist() if row["n"]}
    return {
        "run_id": run.run_id, "rows": rows_in(run.client, [run.run_id]).get(run.run_id, 0),
        "counts": {name: counts[name] for name in TOPICS if name in counts},
        **figures.values(int(samples["equity"][-1]) if len(samples) else figures.capital), "hashes": {},
    }


def rows_in(client: Any, runs: Sequence[str]) -> dict[str, int]:
    """The rows that each run was given: what its journal says, or what is stored of its input, without a broker."""
    ours = f"{RUN_ID} IN {{runs:Array(String)}}"
    stored = " UNION ALL ".join(f"SELECT {RUN_ID}, count() AS n FROM {name} FINAL WHERE {ours} GROUP BY {RUN_ID}" for name in INPUTS)
    given = {"runs": list(runs)}
    found = query_arrow(client, f"SELECT {RUN_ID}, sum(n) AS n FROM ({stored}) GROUP BY {RUN_ID}", given).to_pylist()
    journal = query_arrow(client, f"SELECT {RUN_ID}, sum(n) AS n FROM (SELECT {RUN_ID}, frame_no, any(rows) AS n FROM journal FINAL "
                          f"WHERE {ours} AND frame_no >= 0 GROUP BY {RUN_ID}, frame_no) GROUP BY {RUN_ID}", given).to_pylist()
    return {str(row["run_id"]): int(row["n"]) for row in (*found, *journal)}


def listed(client: Any, configs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Rows, profit and round trips of live runs, for a list of them. configs: the recorded configuration of each."""
    if not configs:
        return {}
    given = {"runs": list(configs)}
    ours = f"{RUN_ID} IN {{runs:Array(String)}} GROUP BY {RUN_ID}"
    last = query_arrow(client, f"SELECT {RUN_ID}, argMax(equity, seq) AS v FROM equity FINAL WHERE {ours}", given).to_pylist()
    trips = query_arrow(client, f"SELECT {RUN_ID}, countIf(closed) AS n FROM fills FINAL WHERE {ours}", given).to_pylist()
    rows = rows_in(client, list(configs))
    trades = {str(row["run_id"]): int(row["n"]) for row in trips}
    made: dict[str, dict[str, Any]] = {run: {"rows": rows.get(run, 0), "pnl": None, "trades": trades.get(run, 0)} for run in configs}
    for row in last:
        run = str(row["run_id"])
        capital = to_decimal(int(compile_policy(config_of(configs[run]).policy)["capital"][0]))
        made[run]["pnl"] = f"{row['v'] - capital:f}"
    return made


def ticks_of(run: "StoredRun", bar: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The first and the last tick of a bar, as many as are found, and how they were found."""
    found = [run.one(TRADES, "seq = {q:Int64}", q=seq) or run.one(QUOTES, "seq = {q:Int64}", q=seq)
             for seq in dict.fromkeys((bar["first_seq"], bar["last_seq"]))]
    if any(found):
        return [tick for tick in found if tick], BY_POSITION
    if not run.data.get("kafka"):
        return [], ""
    ends = [_tick_at(run, bar["symbol"], bar[ts], bar[price], order)
            for ts, price, order in (("ts_first_ns", "open", "ASC"), ("ts_last_ns", "close", "DESC"))]
    ticks = [tick for tick in ends if tick]
    return ticks, BY_TIME if ticks else ""


def _tick_at(run: "StoredRun", symbol: str, ts_ns: int, price: float, order: str) -> dict[str, Any] | None:
    """The market's row of that time, of that price where there is a choice; what the run rejected may stand beside it."""
    for spec, best in ((TRADES, "price = {p:Float64}"), (QUOTES, "(bid = {p:Float64} OR ask = {p:Float64})")):
        columns = ", ".join(f.name for f in spec.fields)
        rows = run.query(f"SELECT {columns} FROM {spec.name} FINAL WHERE {RUN_ID} = {{m:String}} AND symbol = {{s:String}} "
                         f"AND ts_event_ns = {{t:Int64}} ORDER BY {best} DESC, seq {order} LIMIT 1",
                         m=MARKET, s=symbol, t=ts_ns, p=price).to_pylist()
        if rows:
            return dict(rows[0])
    return None


def figures_of(run: "StoredRun", recorded: str) -> dict[str, Any]:
    """What a run recorded as its summary; where a live run recorded none, what its tables say."""
    known: dict[str, Any] = json.loads(recorded or "{}")
    return live_summary(run) if is_live(run.data) and "pnl" not in known else known
