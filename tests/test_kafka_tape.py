"""A stretch of topics as a tape: by times and offsets, as seen and as corrected; and what a URL may say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from research.replaying import replay
from schemas.config_live import KafkaConfig
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.tables import BARS, LATE, TRADES
from sinks.ingest_writer import Writer
from sources.kafka_tape import KafkaTape, Stretch, open_kafka, parse_url
from tests.live_runs import ingest, market, ready

MINUTE = 60 * 10**9
START = 1_700_000_040 * 10**9
NAMES = ("AAA", "BBB")


def write(kafka: KafkaConfig, ts: Sequence[int], symbol: Sequence[int]) -> None:
    """Trades in this order, numbered by their writer."""
    rows = TRADES.empty(len(ts))
    rows["ts_event_ns"], rows["symbol"], rows["price"], rows["size"] = ts, symbol, 100.0 + np.arange(len(ts)), 1.0
    rows["trade_id"], rows["seq"] = np.arange(len(ts)), np.arange(len(ts))
    with Writer(kafka, "w", ("trades",), fingerprint="w") as writer:
        writer.write_frame(Frame("t", 0, int(max(ts)), NAMES, {"trades": rows}))
        writer.flush()


def prices(tape: KafkaTape) -> list[float]:
    return [float(p) for f in tape.frames(2) for p in f.rows(TRADES)["price"]]


LATE_TAPE = [START, START + MINUTE, START + 10, START + 2 * MINUTE, START + 3 * MINUTE]
"""The third row comes a minute late."""


def test_corrected_puts_a_late_row_where_it_belongs_and_seen_leaves_it(kafka: KafkaConfig) -> None:
    ready(kafka)
    write(kafka, LATE_TAPE, [0, 1, 0, 1, 0])
    seen, corrected = (KafkaTape(kafka, Stretch(kafka.servers, ("trades",), order)) for order in ("seen", "corrected"))
    assert prices(seen) == [100, 101, 102, 103, 104] and prices(corrected) == [100, 102, 101, 103, 104]
    assert seen.symbols == corrected.symbols == NAMES and seen.data_hash != corrected.data_hash


def test_the_late_row_is_late_as_seen_with_both_times_and_in_its_bar_as_corrected(kafka: KafkaConfig) -> None:
    ready(kafka)
    write(kafka, LATE_TAPE, [0, 0, 0, 0, 0])
    made: dict[str, Any] = {}
    for order in ("seen", "corrected"):
        made[order] = replay(KafkaTape(kafka, Stretch(kafka.servers, ("trades",), order)), strategies=())
    late = made["seen"].table(LATE).to_pylist() or made["seen"].rejected.to_pylist()
    assert len(late) == 1 and late[0]["ts_event_ns"] == START + 10
    bars = {order: run.table(BARS).to_pylist() for order, run in made.items()}
    assert [b["trades"] for b in bars["seen"]] == [1, 1, 1] and [b["trades"] for b in bars["corrected"]] == [2, 1, 1]
    assert made["corrected"].table(LATE).num_rows == 0


def test_a_market_comes_back_as_it_went_in_whatever_the_partitions(kafka: KafkaConfig) -> None:
    ready(kafka)
    ingest(kafka)
    direct = replay(market(), strategies=("momentum",))
    tape = open_kafka(f"kafka://{kafka.servers}/trades,beats?prefix={kafka.prefix}", None)
    through = replay(tape, strategies=("momentum",))
    assert through.summary["counts"]["trades"] == direct.summary["counts"]["trades"]
    columns = ("symbol", "ts_open_ns", "open", "high", "low", "close", "volume", "trades")
    assert through.bars.select(columns).equals(direct.bars.select(columns)) and direct.bars.num_rows > 100


def test_times_and_offsets_cut(kafka: KafkaConfig) -> None:
    ready(kafka)
    write(kafka, [START + k * MINUTE for k in range(6)], [0] * 6)
    url = f"kafka://{kafka.servers}/trades?prefix={kafka.prefix}"
    whole = open_kafka(url, None)
    assert prices(whole) == [100, 101, 102, 103, 104, 105]
    text = str(np.datetime64(START + 2 * MINUTE, "ns"))
    assert prices(open_kafka(f"{url}&from={text}&to={START + 4 * MINUTE}", None)) == [102, 103]
    assert prices(open_kafka(f"{url}&from=1&to=3", None)) == [101, 102]
    with pytest.raises(UserError, match="nothing to replay: trades at .* hold no rows between from and to"):
        open_kafka(f"{url}&from=2030-01-01", None)
    assert [f.number for f in whole.frames(4, skip_rows=4)] == [1]


@pytest.mark.parametrize(("url", "said"), [
    ("kafka:///trades", "is not of the form kafka://HOST:PORT/trades"),
    ("kafka://h:1", "is not of the form"),
    ("kafka://h:1/trads", 'unknown topic of a tape "trads"; did you mean "trades"'),
    ("kafka://h:1/trades?form=1", 'did you mean "from"'),
    ("kafka://h:1/trades?as=sen", 'unknown order "sen"; did you mean "seen"'),
    ("kafka://h:1/trades?from=yesterday", 'from="yesterday" is neither an offset nor a time'),
])
def test_what_a_url_may_not_say(url: str, said: str) -> None:
    with pytest.raises(UserError) as told:
        parse_url(url)
    assert said in str(told.value)
