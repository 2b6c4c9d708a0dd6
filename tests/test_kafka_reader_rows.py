"""The decoder: what compiled code takes has the very bits of the codecs; order, partitions and names are those of the log."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.codec import encode_ipc, to_arrow
from schemas.codec_json import decode_json, encode_json
from schemas.messages import headers
from schemas.tables import QUOTES, TRADES, TableSpec
from sources import kafka_rows
from sources.kafka_names import LIMIT, Interner
from sources.kafka_polled import Polled
from sources.kafka_rows import Decoded, Decoder
from tests.kafka_producing import as_polled
from tests.kafka_rows_made import ALL, INPUTS, NAMES, all_rows, changed, decoder, rewritten, same, some_rows

BY_NAME = pytest.mark.parametrize("spec", INPUTS, ids=lambda s: s.name)


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("seed", [1, 2])
def test_json_in_any_form_is_what_the_codec_says(spec: TableSpec, seed: int) -> None:
    rng = random.Random(seed)
    rows = some_rows(spec, 400, seed)
    pairs = [rewritten(rng, spec, message) for message in encode_json(spec, rows, NAMES, NAMES)]
    decoded = decoder(*NAMES).decode(as_polled([message for message, _ in pairs], spec.name))
    assert decoded.dead == ()
    wanted = decode_json(spec, [full for _, full in pairs], NAMES, NAMES)
    assert same(all_rows(decoded), wanted)
    assert decoded.blocks[0].offsets.tolist() == list(range(100, 500))


@BY_NAME
def test_plain_json_never_takes_the_slow_way(spec: TableSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(spec, 300, 3, symbols=3)
    for f in spec.fields:  # what only the slow way reads: infinities, -0 and numbers below the normal ones
        if f.kind == "float":
            with np.errstate(invalid="ignore"):
                odd = ~np.isfinite(rows[f.name]) & ~np.isnan(rows[f.name]) | (np.abs(rows[f.name]) < 1e-300) | (np.abs(rows[f.name]) > 1e300)
            rows[f.name][odd] = 0.0
    monkeypatch.setattr(kafka_rows, "read_message", lambda *_: pytest.fail("the slow way was taken"))
    decoded = decoder(*NAMES).decode(as_polled(encode_json(spec, rows, NAMES), spec.name, [headers(spec, "json")] * 300))
    assert same(all_rows(decoded), rows)


@pytest.mark.parametrize("spec", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_arrow_is_what_the_codec_says(spec: TableSpec, compression: str | None) -> None:
    parts = [some_rows(spec, n, n) for n in (1, 0, 700, 13)]
    payloads = [encode_ipc(to_arrow(spec, part, NAMES, NAMES), compression).to_pybytes() for part in parts]
    for given in (None, [headers(spec, "arrow", "r")] * len(parts)):
        decoded = decoder("other", *NAMES).decode(as_polled(payloads, spec.name, given))
        assert decoded.dead == ()
        wanted = np.concatenate(parts)
        for f in spec.fields:
            if f.kind in ("symbol", "strategy"):
                wanted[f.name] += 1
        assert same(all_rows(decoded), wanted)
        assert decoded.blocks[0].offsets.tolist() == [100] + [102] * 700 + [103] * 13
        assert (decoded.blocks[0].offset_from, decoded.blocks[0].offset_to) == (100, 104)


@BY_NAME
def test_arrow_of_known_names_never_takes_the_slow_way(spec: TableSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_rows, "read_message", lambda *_: pytest.fail("the slow way was taken"))
    rows = some_rows(spec, 300, 3)
    table = to_arrow(spec, rows, NAMES)
    decoded = decoder(*NAMES).decode(as_polled([encode_ipc(table).to_pybytes(), encode_ipc(table.slice(5, 100)).to_pybytes()], spec.name))
    assert same(all_rows(decoded), np.concatenate((rows, rows[5:105])))


def test_both_codecs_on_one_partition_keep_the_order_of_the_log() -> None:
    rows = some_rows(TRADES, 60, 5, symbols=3)
    payloads: list[bytes] = []
    offsets: list[int] = []
    for start in range(0, 60, 6):
        payloads += encode_json(TRADES, rows[start : start + 2], NAMES)
        payloads.append(encode_ipc(to_arrow(TRADES, rows[start + 2 : start + 6], NAMES)).to_pybytes())
        offsets += [100 + len(payloads) - 3, 100 + len(payloads) - 2, *[100 + len(payloads) - 1] * 4]
    payloads.insert(7, b"nothing")
    offsets = [o + (o >= 107) for o in offsets]
    d = decoder(*NAMES)
    decoded = d.decode(as_polled(payloads))
    assert same(all_rows(decoded), rows)
    assert decoded.blocks[0].offsets.tolist() == offsets
    assert [letter["offset"] for letter in decoded.dead] == [107]


def test_partitions_and_tables_come_apart() -> None:
    rows = some_rows(TRADES, 90, 6, symbols=3)
    payloads = encode_json(TRADES, rows, NAMES)
    where = [int(p) for p in np.random.default_rng(1).integers(0, 5, 90)]
    payloads[11] = b"{"
    decoded = decoder(*NAMES).decode(as_polled(payloads, partitions=where))
    good = np.array([i != 11 for i in range(90)])
    assert [block.partition for block in decoded.blocks] == [0, 1, 2, 3, 4]
    for block in decoded.blocks:
        mine = np.array([p == block.partition for p in where])
        assert same(block.rows, rows[mine & good])
        assert (block.offset_from, block.offset_to) == (100, 100 + int(mine.sum()))
        assert block.rows.flags.c_contiguous and block.rows.flags.writeable
    assert decoded.dead[0]["partition"] == where[11]
    quotes = some_rows(QUOTES, 4, 1, symbols=3)
    one, two = as_polled(payloads[:3]), as_polled(encode_json(QUOTES, quotes, NAMES), "quotes")
    mixed = Polled(
        ("quotes", "trades"), ("p.quotes", "p.trades"), np.array([1, 0, 0, 1, 0, 1, 0]), np.zeros(7, np.int64), np.arange(7), np.zeros(7, np.int64),
        np.zeros(7, np.int64), one.header_sets, *_joined([one, two, two, one, two, one, two], [0, 0, 1, 1, 2, 2, 3]),
    )
    blocks = decoder(*NAMES).decode(mixed).blocks
    assert [b.table for b in blocks] == ["quotes", "trades"]
    assert same(blocks[0].rows, quotes) and same(blocks[1].rows, rows[:3])
    assert blocks[0].offsets.tolist() == [1, 2, 4, 6] and blocks[1].offsets.tolist() == [0, 3, 5]


def _joined(polls: list[Polled], which: list[int]) -> tuple[Any, Any]:
    made = as_polled([poll.payload(i) for poll, i in zip(polls, which, strict=True)])
    return made.data, made.starts


def test_arrow_of_other_producers() -> None:
    ours = some_rows(TRADES, 4, 2)
    table = to_arrow(TRADES, ours, NAMES)
    d = decoder(*NAMES)
    plain = table.set_column(2, "symbol", table["symbol"].cast(pa.string())).append_column("venue", pa.array(["x"] * 4))
    fewer = table.drop_columns(["seq", "side", "trade_id", "flags"])
    without, nulls = table.drop_columns(["price"]), table.set_column(3, "price", pa.array([1.0, None, 2.0, 3.0]))
    no_time = table.set_column(0, "ts_event_ns", pa.array([1, None, 2, 3], pa.int64()))
    blank = table.set_column(2, "symbol", pa.array(["", "A", "A", "A"]).dictionary_encode())
    decoded = d.decode(as_polled([encode_ipc(t).to_pybytes() for t in (plain, fewer, without, nulls, no_time, blank)]))
    rows = all_rows(decoded)
    assert same(rows[:4], ours)
    for name, value in (("seq", -1), ("side", 0), ("trade_id", -1), ("flags", 0)):
        assert (rows[name][4:8] == value).all()
    assert np.isnan(rows["price"][9]) and len(rows) == 12
    errors = [letter["error"] for letter in decoded.dead]
    assert 'no column "price"' in errors[0] and "ts_event_ns is null in row 2" in errors[1] and "symbol is empty" in errors[2]


def test_beats_and_control_may_speak_for_all() -> None:
    d = decoder()
    beats = d.decode(as_polled([b'{"ts_event_ns":5}', b'{"symbol":"","ts_event_ns":6,"seq":9}', b'{"symbol":"A","ts_event_ns":7}'], "beats"))
    assert beats.dead == ()
    assert beats.blocks[0].rows.tolist() == [(5, -1, -1), (6, 9, -1), (7, -1, 0)]
    control = d.decode(as_polled([b'{"command":"halt","ts_event_ns":5}'], "control"))
    assert control.blocks[0].rows.tolist() == [(5, -1, -1, 3)]
    for table in ("beats", "control"):
        spec = kafka_rows.TABLES[table]
        payload = encode_ipc(to_arrow(spec, control.blocks[0].rows if table == "control" else beats.blocks[0].rows, d.symbols.names)).to_pybytes()
        assert d.decode(as_polled([payload], table)).dead == ()


def test_new_names_get_codes_in_the_order_of_the_log_and_keep_them() -> None:
    d = decoder()
    names = [f"N{i % 200}" for i in range(1000)]
    decoded = d.decode(as_polled([changed(symbol=name) for name in names]))
    assert decoded.dead == () and d.symbols.names == tuple(f"N{i}" for i in range(200))
    assert decoded.blocks[0].rows["symbol"].tolist() == [i % 200 for i in range(1000)]
    other = Interner()
    other.restore(d.symbols.snapshot())
    again = Decoder(other).decode(as_polled([changed(symbol="N7"), changed(symbol="new"), changed(symbol="N199")]))
    assert again.blocks[0].rows["symbol"].tolist() == [7, 200, 199]
    assert d.symbols.names == tuple(f"N{i}" for i in range(200))


def test_a_bad_message_leaves_no_name_behind() -> None:
    d = decoder()
    decoded = d.decode(as_polled([changed(symbol="GHOST", price="x"), changed(symbol="REAL")]))
    assert len(decoded.dead) == 1 and d.symbols.names == ("REAL",)


def test_names_are_bounded() -> None:
    d = Decoder(Interner(limit=3))
    decoded = d.decode(as_polled([changed(symbol=f"N{i}") for i in range(5)] + [changed(symbol="N1")]))
    assert decoded.blocks[0].rows["symbol"].tolist() == [0, 1, 2, 1]
    assert ["at most 3 different ones" in letter["error"] for letter in decoded.dead] == [True, True]
    assert Interner().limit == LIMIT and Interner().code("") == -1


def test_a_table_of_records_is_not_for_this_decoder() -> None:
    with pytest.raises(ValueError, match="dead_letter has text columns"):
        decoder().decode(as_polled([b"{}"], "dead_letter"))


def test_nothing_gives_nothing() -> None:
    assert decoder().decode(as_polled([])) == Decoded((), ())
