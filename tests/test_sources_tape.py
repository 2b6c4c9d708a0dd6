"""The tape: the merged order is that of a naive sort, whatever the batch size, the order of paths or where one resumes."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UserError
from schemas.tables import BEATS, QUOTES, RECORDED, TRADES
from sources.merge import Stream, merged
from sources.tape import cut, open_tape
from tests.sources_files import SPECS, START_NS, same, some_rows, whole, write_rows

TIMES = st.lists(st.integers(0, 12), min_size=1, max_size=40)
"""Not sorted: rows of a stream keep their order all the same."""
STREAMS = st.lists(st.tuples(st.sampled_from(sorted(SPECS)), TIMES), min_size=1, max_size=6)


def blocks_of(rows, sizes):
    """A stream that shows its rows in blocks of these sizes, then of seven."""
    def blocks(limit):
        at, k = 0, 0
        while at < len(rows):
            size = min(limit, sizes[k] if k < len(sizes) else 7)
            yield rows[at : at + size].copy()
            at, k = at + size, k + 1
    return blocks  # fmt: skip


def naive(rows_of):
    """The merge in its plainest form: take the stream whose next row is first, the earlier stream at the same time."""
    at, out = [0] * len(rows_of), []
    while any(a < len(rows) for a, rows in zip(at, rows_of, strict=True)):
        _, s = min((int(rows[a]["ts_event_ns"]), s) for s, (a, rows) in enumerate(zip(at, rows_of, strict=True)) if a < len(rows))
        out.append((s, at[s]))
        at[s] += 1
    return out


@settings(max_examples=60, deadline=None)
@given(STREAMS, st.lists(st.integers(1, 9), max_size=5), st.integers(1, 50), st.integers(0, 30))
def test_merge_is_the_naive_one_at_any_cut(shapes, sizes, batch_rows, skip_rows):
    rows_of = [some_rows(SPECS[kind], times, k) for k, (kind, times) in enumerate(shapes)]
    expected = naive(rows_of)
    streams = [Stream(kind, blocks_of(rows, sizes)) for (kind, _), rows in zip(shapes, rows_of, strict=True)]
    frames = list(cut(merged(streams), (), batch_rows, skip_rows))
    found = {int(r["seq"]): (int(r["symbol"]), r) for f in frames for t in f.tables.values() for r in t}
    assert sorted(found) == list(range(skip_rows, len(expected)))
    for seq, (symbol, row) in found.items():
        s, at = expected[seq]
        again = rows_of[s][at].copy()
        again["seq"] = seq
        if "first_seq" in row.dtype.names:
            again["first_seq"] = again["last_seq"] = seq
        assert symbol == s and row.tobytes() == again.tobytes()
    lengths = [sum(map(len, f.tables.values())) for f in frames]
    assert all(n == batch_rows for n in lengths[:-1]) and all(0 < n <= batch_rows for n in lengths[-1:])
    assert [f.number for f in frames] == [skip_rows // batch_rows + k for k in range(len(frames))]
    done = [int(rows_of[s][at]["ts_event_ns"]) for s, at in expected]
    ends = np.cumsum([skip_rows, *lengths])[1:]
    assert [f.frontier_ns for f in frames] == [max(done[:n]) for n in ends]


@pytest.fixture(scope="module")
def folder():
    """Three symbols, two of them in a file a month, of several tables, with equal times everywhere."""
    rng = np.random.default_rng(3)
    with TemporaryDirectory() as name:
        at = Path(name)
        for k, symbol in enumerate(("BBB", "AAA", "CCC")):
            times = np.sort(rng.integers(0, 300, 400))
            write_rows(at / f"{symbol}-trades.parquet", TRADES, some_rows(TRADES, times), (symbol,))
            later = some_rows(TRADES, 300 + np.sort(rng.integers(0, 50, 100)))
            if k < 2:
                write_rows(at / f"{symbol}-trades-later.parquet", TRADES, later, (symbol,))
            write_rows(at / f"{symbol}-quotes.parquet", QUOTES, some_rows(QUOTES, times[::2]), (symbol,))
        write_rows(at / "bars.parquet", RECORDED, some_rows(RECORDED, range(1, 200)), ("DDD",))
        write_rows(at / "beats.parquet", BEATS, some_rows(BEATS, range(0, 300, 60), -1), ())
        yield at


def test_a_folder_is_one_tape(folder):
    tape = open_tape([str(folder)])
    assert tape.symbols == ("AAA", "BBB", "CCC", "DDD") and tape.kinds == ("quotes", "trades", "recorded", "beats")
    everything = whole(tape.frames(1 << 16))
    assert tape.rows_total == sum(map(len, everything.values())) == 1400 + 600 + 199 + 5
    rows = sorted((int(r["seq"]), int(r["ts_event_ns"]), int(r["symbol"]), k) for k, t in everything.items() for r in t)
    order = {"quotes": 0, "trades": 1, "recorded": 2, "beats": 3}
    keys = [(ts, 9 if kind == "beats" else symbol, order[kind]) for _, ts, symbol, kind in rows]
    assert keys == sorted(keys) and [r[0] for r in rows] == list(range(len(rows)))
    assert tape.ts_range == (rows[0][1], rows[-1][1])


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 2203, 2204])
def test_batch_size_and_resuming_change_nothing(folder, batch_rows):
    tape = open_tape([str(folder)])
    everything = whole(tape.frames(1 << 20))
    frames = list(tape.frames(batch_rows))
    assert same(whole(frames), everything)
    middle = frames[len(frames) // 2]
    again = list(tape.frames(batch_rows, middle.number * batch_rows))
    for a, b in zip(again, frames[len(frames) // 2 :], strict=True):
        assert (a.number, a.frontier_ns, a.origin, a.symbols) == (b.number, b.frontier_ns, b.origin, b.symbols)
        assert same(a.tables, b.tables)


def test_the_order_of_paths_changes_nothing(folder):
    files = sorted(map(str, folder.glob("*.parquet")))
    tapes = [open_tape(files), open_tape(files[::-1]), open_tape([str(folder / "*.parquet"), files[0]])]
    assert len({t.data_hash for t in tapes}) == 1
    assert all(same(whole(t.frames(500)), whole(tapes[0].frames(500))) for t in tapes)


def test_data_hash_follows_content_and_cut(folder, tmp_path):
    rows = some_rows(TRADES, range(10))
    one = open_tape([write_rows(tmp_path / "a.parquet", TRADES, rows, ("A",))])
    copy = open_tape([write_rows(tmp_path / "b.parquet", TRADES, rows, ("A",))])
    rows["price"][3] += 1e-9
    other = open_tape([write_rows(tmp_path / "c.parquet", TRADES, rows, ("A",))])
    cut_short = open_tape([str(tmp_path / "a.parquet")], ts_to=START_NS + 5 * 10**9)
    assert one.data_hash == copy.data_hash and len({one.data_hash, other.data_hash, cut_short.data_hash}) == 3


def test_from_and_to(folder):
    everything = whole(open_tape([str(folder)]).frames(1 << 20))
    low, high = START_NS + 50 * 10**9, START_NS + 200 * 10**9
    tape = open_tape([str(folder)], ts_from=low, ts_to=high)
    found = whole(tape.frames(333))
    for kind, rows in everything.items():
        inside = rows[(rows["ts_event_ns"] >= low) & (rows["ts_event_ns"] < high)]
        assert inside["ts_event_ns"].tolist() == found[kind]["ts_event_ns"].tolist()
    assert min(int(r["seq"][0]) for r in found.values()) == 0, "positions count what is on the tape"
    with pytest.raises(UserError, match=r"nothing between --from and --to: the tape runs from 2023-11-14T"):
        open_tape([str(folder)], ts_from=START_NS + 10**15)
    with pytest.raises(UserError, match="is not before"):
        open_tape([str(folder)], ts_from=5, ts_to=5)


def test_a_stream_may_be_unsorted(tmp_path):
    rows = some_rows(TRADES, [5, 3, 9, 1, 9, 2])
    tape = open_tape([write_rows(tmp_path / "a.parquet", TRADES, rows, ("A",))])
    assert whole(tape.frames(4))["trades"]["price"].tolist() == rows["price"].tolist()
