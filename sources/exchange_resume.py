"""Where an exchange's trades ended on the topic, so that a process that starts fetches what was traded while none ran.

Only the end of each partition is read; a symbol that did not trade there begins anew, with what comes.
"""

from collections.abc import Sequence

from brokers.partitions import partitions_of
from schemas.config_live import KafkaConfig
from schemas.tables import TRADES
from sources.exchange_order import Trade
from sources.kafka_batch import END, BatchReader, Position
from sources.kafka_rows import Decoder, Interner

LOOK_BACK = 50_000
"""Messages of a partition."""


def last_trades(kafka: KafkaConfig, writer: int, symbols: Sequence[str]) -> dict[str, Trade]:
    """The newest trade of each symbol that this writer wrote, where it has an id that is a number."""
    keys = range(partitions_of(kafka, TRADES.name))
    reader = BatchReader(kafka, [Position(TRADES.name, p, END) for p in keys])
    interner = Interner()
    decoder = Decoder(interner)
    found: dict[str, Trade] = {}
    try:
        marks = {p: reader.watermarks(TRADES.name, p) for p in keys}
        reader.seek([Position(TRADES.name, p, max(low, high - LOOK_BACK)) for p, (low, high) in marks.items()])
        while any(at.offset < marks[at.partition][1] for at in reader.positions()):
            for block in decoder.decode(reader.poll(LOOK_BACK, 0.5)).blocks:
                rows = block.rows[(block.rows["seq"] >> 48 == writer) & (block.rows["trade_id"] >= 0)]
                for code in set(rows["symbol"].tolist()):
                    row = rows[rows["symbol"] == code][-1]
                    found[interner.names[code]] = Trade(str(int(row["trade_id"])), int(row["ts_event_ns"]), float(row["price"]),
                                                        float(row["size"]), int(row["side"]))
    finally:
        reader.close()
    return {name: trade for name, trade in found.items() if name in symbols}
