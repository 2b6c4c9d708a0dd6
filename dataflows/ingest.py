"""Ingest: a tape or an exchange onto the input topics.

What is written depends on the source and the beat alone; the pace and the codec change when and how, not what.
"""

from collections.abc import Callable, Iterator
from typing import Any

from schemas.config_live import ExchangeConfig, KafkaConfig
from schemas.frame import Frame
from sinks.ingest_writer import Codec, Writer
from sources.exchange_events import Timings
from sources.exchange_frames import live_frames
from sources.exchange_resume import last_trades
from sources.ingest_pace import BEAT_NS, paced
from sources.tape import Source
from telemetry import metrics

Progress = Callable[[int, str], None]


def ingest_tape(source: Source, kafka: KafkaConfig, name: str, *, pace: float = 0.0, beat_ns: int = BEAT_NS, codec: Codec = "json",
                linger_ms: float = 5.0, stopping: Callable[[], bool] = lambda: False, progress: Progress = lambda rows, note: None,
                told: Callable[[int], None] = lambda messages: None) -> dict[str, Any]:
    """Write a tape; what is on the topics already is not written again. Returns the counts, as `--json` prints them."""
    with Writer(kafka, name, source.kinds, codec=codec, linger_ms=linger_ms, fingerprint=f"{source.data_hash} {beat_ns}",
                told=told) as writer:
        frames = paced(source, pace, beat_ns, start_row=writer.resumed_from, stopping=stopping)
        for frame in _stepped(frames, writer):
            progress(writer.written + writer.skipped, f"{writer.written:,} rows")
            metrics.progressed()
            del frame
    return {"writer": name, "writer_id": writer.id, "rows": writer.counts, "resumed_from": writer.resumed_from,
            "already_there": writer.skipped, "codec": codec, "stopped": stopping()}


def ingest_live(exchange: ExchangeConfig, kafka: KafkaConfig, name: str, *, linger_ms: float = 5.0,
                stopping: Callable[[], bool] = lambda: False, progress: Progress = lambda rows, note: None,
                told: Callable[[int], None] = lambda messages: None, timings: Timings | None = None) -> dict[str, Any]:
    """Write an exchange's live prices until stopped, behind what the writer wrote before. Returns the counts, as `--json` prints them."""
    feeds: list[Any] = []
    with Writer(kafka, name, exchange.tables, linger_ms=linger_ms, told=told) as writer:
        known = last_trades(kafka, writer.id, exchange.symbols) if "trades" in exchange.tables else {}
        frames = live_frames(exchange, writer.resumed_from, stopping, timings=timings, said=feeds.append, resume=known)
        for frame in _stepped(frames, writer):
            progress(writer.written, f"{writer.written:,} rows")
            metrics.progressed()
            del frame
    return {"writer": name, "writer_id": writer.id, "rows": writer.counts, "resumed_from": writer.resumed_from, "filled": writer.filled,
            "codec": writer.codec, "stopped": stopping(),
            **{what: getattr(feed, what) for feed in feeds for what in ("duplicates", "fetched", "reconnects", "rotations")}}


def _stepped(frames: Iterator[Frame], writer: Writer) -> Iterator[Frame]:
    for frame in frames:
        writer.write_frame(frame)
        yield frame
