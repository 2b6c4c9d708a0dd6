"""The simulator: the same seed, the same rows, at any batch size and length; and it looks like a market."""

import numpy as np
import pytest

from schemas.errors import UserError
from schemas.tables import ALL_SYMBOLS, BUY, SELL
from sources.market import HOUR_NS, REGIMES, Walk, _regimes, generator
from sources.simulator import START_NS, simulate, write_tape
from sources.tape import open_tape
from tests.sources_files import same, whole

MINUTE = 60 * 10**9


@pytest.fixture(scope="module")
def day():
    tape = simulate(10, 24, 7)
    return tape, whole(tape.frames(1 << 18))


def minute_returns(tape, rows, symbol):
    trades = rows["trades"][rows["trades"]["symbol"] == symbol]
    minute = (trades["ts_event_ns"] - tape.start_ns) // MINUTE
    last = np.full(int(tape.hours * 60), np.nan)
    last[minute] = trades["price"]
    known = np.maximum.accumulate(np.where(np.isnan(last), 0, np.arange(len(last))))
    return np.diff(np.log(last[known][minute[0] :]))


@pytest.mark.parametrize("batch_rows", [1, 999, 1 << 20])
def test_batch_size_and_resuming_change_nothing(batch_rows):
    tape = simulate(3, 0.25, 11, quotes=True)
    rows = whole(tape.frames(5000))
    frames = list(tape.frames(batch_rows))
    assert same(whole(frames), rows) and all(sum(map(len, f.tables.values())) == batch_rows for f in frames[:-1])
    n = sum(map(len, rows.values()))
    later = whole(tape.frames(batch_rows, n // 3))
    assert min(int(r["seq"].min()) for r in later.values()) == n // 3
    assert all(rows[k][rows[k]["seq"] >= n // 3].tobytes() == r.tobytes() for k, r in later.items())


def test_seed_length_and_number_of_symbols():
    short = whole(simulate(3, 1, 5).frames(4096))
    assert same(short, whole(simulate(3, 1, 5).frames(4096)))
    assert not same(short, whole(simulate(3, 1, 6).frames(4096)))
    longer = whole(simulate(3, 1.5, 5).frames(4096))
    n = len(short["trades"])
    assert longer["trades"][:n].tobytes() == short["trades"].tobytes() and len(longer["trades"]) > n
    assert longer["trades"]["ts_event_ns"].max() < START_NS + 1.5 * HOUR_NS
    more = whole(simulate(6, 1, 5).frames(4096))["trades"]
    values = ["ts_event_ns", "symbol", "price", "size", "side", "trade_id"]
    assert more[more["symbol"] < 3][values].tolist() == short["trades"][values].tolist()


def test_data_hash_is_of_what_determines_the_rows():
    hashes = {t.data_hash for t in (simulate(3, 1, 5), simulate(3, 1, 5, quotes=True), simulate(3, 2, 5), simulate(4, 1, 5))}
    assert len(hashes) == 4 and simulate(3, 1, 5).data_hash in hashes


def test_the_tape_is_in_order(day):
    tape, rows = day
    everything = np.sort(np.concatenate([r["seq"] for r in rows.values()]))
    assert (everything == np.arange(len(everything))).all()
    seq = np.concatenate([r["seq"] for r in rows.values()])
    ts = np.concatenate([r["ts_event_ns"] for r in rows.values()])[np.argsort(seq)]
    assert (np.diff(ts) >= 0).all()
    assert tape.ts_range[0] <= ts[0] and ts[-1] <= tape.ts_range[1]
    assert 0.5 < tape.rows_total / len(everything) < 2


def test_trades(day):
    tape, rows = day
    trades = rows["trades"]
    assert (trades["price"] > 0).all() and (trades["size"] > 0).all() and (trades["flags"] == 0).all()
    assert set(np.unique(trades["side"])) == {BUY, SELL}
    for symbol, traits in enumerate(tape.traits):
        mine = trades[trades["symbol"] == symbol]
        assert (mine["trade_id"] == 1 + np.arange(len(mine))).all()
        ticks = mine["price"] * 10.0**traits.price_decimals
        assert np.abs(ticks - np.rint(ticks)).max() < 1e-6
        buys, sells = mine["price"][mine["side"] == BUY], mine["price"][mine["side"] == SELL]
        assert len(buys) > 0.3 * len(mine) and len(sells) > 0.3 * len(mine)


def test_beats_come_once_a_minute_for_all_symbols(day):
    tape, rows = day
    assert (rows["beats"]["symbol"] == ALL_SYMBOLS).all()
    assert rows["beats"]["ts_event_ns"].tolist() == [tape.start_ns + k * MINUTE for k in range(1, 24 * 60 + 1)]


def test_it_looks_like_a_market(day):
    """Clustered and fat-tailed moves, correlated symbols, clustered arrivals, persistent order flow, quiet symbols."""
    tape, rows = day
    busy = [s for s, t in enumerate(tape.traits) if not t.quiet]
    returns = np.array([minute_returns(tape, rows, s)[-1400:] for s in busy])
    size = np.abs(returns)
    clustering = [np.corrcoef(a[:-lag], a[lag:])[0, 1] for a in size for lag in (1, 5)]
    assert np.mean(clustering) > 0.05
    assert all(abs(np.corrcoef(r[:-1], r[1:])[0, 1]) < 0.15 for r in returns)
    spread = returns - returns.mean(axis=1, keepdims=True)
    assert ((spread**4).mean(axis=1) / (spread**2).mean(axis=1) ** 2 > 3.5).all()
    assert np.median(np.corrcoef(returns)[np.triu_indices(len(busy), 1)]) > 0.08
    trades = rows["trades"]
    for s in busy:
        mine = trades[trades["symbol"] == s]
        counts = np.bincount((mine["ts_event_ns"] - tape.start_ns) // 10**9, minlength=86_400)
        assert counts.var() > 1.2 * counts.mean()
        bought = mine["side"] == BUY
        assert np.corrcoef(bought[:-1], bought[1:])[0, 1] > 0.03
    per_symbol = np.bincount(trades["symbol"])
    quiet = [s for s, t in enumerate(tape.traits) if t.quiet]
    assert len(quiet) == 2 and per_symbol[quiet].max() < 5_000 < per_symbol[busy].min()


def test_quotes_stand_around_the_trades():
    tape = simulate(2, 1, 3, quotes=True)
    rows = whole(tape.frames(10_000))
    quotes = rows["quotes"]
    assert (quotes["bid"] > 0).all() and (quotes["bid"] < quotes["ask"]).all()
    assert (quotes["bid_size"] > 0).all() and (quotes["ask_size"] > 0).all()
    for s in range(2):
        q, t = (rows[k][rows[k]["symbol"] == s] for k in ("quotes", "trades"))
        at = np.searchsorted(q["seq"], t["seq"]) - 1
        assert at.min() >= 0
        bought = t["side"] == BUY
        touch = np.where(bought, q["ask"][at] <= t["price"] + 1e-9, q["bid"][at] >= t["price"] - 1e-9)
        assert touch.all(), "buyers pay the offer or more, sellers get the bid or less"


def test_every_regime_happens():
    walk, seen = Walk(1.0, 1.0, 0, 10), set()
    for hour in range(400):
        seen |= set(_regimes(generator(1, 0, hour), walk).tolist())
    assert seen == set(range(len(REGIMES)))


def test_written_and_read_it_is_the_same_tape(tmp_path):
    tape = simulate(4, 2, 9, quotes=True)
    calls = []
    paths = write_tape(tape, str(tmp_path / "tape.parquet"), lambda share, rows: calls.append((share, rows)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tape.parquet", "tape_beats.parquet", "tape_quotes.parquet"]
    rows = whole(tape.frames(1000))
    assert calls == sorted(calls) and calls[-1] == (1.0, sum(map(len, rows.values())))
    recorded = open_tape(paths)
    assert recorded.symbols == tape.symbols and recorded.kinds == tape.kinds
    for a, b in zip(recorded.frames(7000), tape.frames(7000), strict=True):
        assert (a.number, a.frontier_ns, a.symbols) == (b.number, b.frontier_ns, b.symbols) and same(a.tables, b.tables)
    alone = whole(open_tape([str(tmp_path / "tape.parquet")]).frames(1000))
    assert list(alone) == ["trades"] and len(alone["trades"]) == len(rows["trades"])


def test_nothing_half_written_stays(tmp_path):
    def stop(share, rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tape(simulate(1, 1, 1), str(tmp_path / "tape.parquet"), stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 1), "0 symbols"), ((1, 0, 1), "0 hours"), ((1, float("nan"), 1), "nan hours"), ((1, 1, -1), "seed -1")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        simulate(*arguments)


def test_bad_paths(tmp_path):
    tape = simulate(1, 0.1, 1)
    with pytest.raises(UserError, match='must end in ".parquet"'):
        write_tape(tape, str(tmp_path / "tape.csv"))
    with pytest.raises(UserError, match="does not exist; make it first"):
        write_tape(tape, str(tmp_path / "no" / "tape.parquet"))
