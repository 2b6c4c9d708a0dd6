"""Recorded bars that are passed on uncopied: the same rows and the same state as when every row takes the long way."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.market import bars_kernel
from operators.market.bars import Bars, BarsConfig
from schemas.frame import Frame
from schemas.tables import BARS, RECORDED, Rows

MINUTE_NS = 60 * 10**9


def recording(gaps: list[int], broken: int, quoted: bool) -> Rows:
    """One-minute bars of two symbols with holes; row `broken` is of another interval, a second time, or has a quote."""
    rows = RECORDED.empty(len(gaps))
    rows["seq"] = rows["first_seq"] = rows["last_seq"] = np.arange(len(gaps))
    rows["symbol"] = np.arange(len(gaps)) % 2
    for symbol in range(2):
        own = rows["symbol"] == symbol
        rows["ts_open_ns"][own] = MINUTE_NS * (np.arange(own.sum()) + np.cumsum(np.array(gaps)[own]))
        rows["gap"][own] = np.array(gaps)[own]
    rows["interval_ns"] = MINUTE_NS
    for name in ("open", "high", "low", "close", "volume", "notional", "vwap"):
        rows[name] = 100.0
    for name in ("bid", "ask", "bid_size", "ask_size"):
        rows[name] = np.nan
    if broken < len(rows) and quoted:
        rows["bid"][broken] = 99.0
    elif broken < len(rows):
        rows["interval_ns"][broken] = 5 * MINUTE_NS
    rows["ts_close_ns"] = rows["ts_event_ns"] = rows["ts_open_ns"] + rows["interval_ns"]
    return rows


def made_of(rows: Rows, cuts: list[int]) -> tuple[bytes, list[bytes]]:
    """The bars' bytes and the state's after the rows came in frames cut at `cuts`."""
    bars = Bars(BarsConfig((MINUTE_NS,)))
    out = []
    for part in np.split(rows, sorted(cuts)):
        out.append(bars.step(Frame("f", 0, 0, ("A", "B"), {"recorded": part})).rows(BARS).tobytes())
    return b"".join(out), [state.tobytes() for state in bars.snapshot().values()]


@settings(deadline=None, max_examples=60)
@given(
    gaps=st.lists(st.integers(0, 2), min_size=1, max_size=30),
    broken=st.integers(0, 60),
    quoted=st.booleans(),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    right=st.booleans(),
)
def test_the_short_way_gives_what_the_long_way_gives(
    gaps: list[int], broken: int, quoted: bool, cuts: list[int], right: bool
) -> None:
    rows = recording(gaps, broken, quoted)
    if not right:
        rows["gap"] = 0
    short = made_of(rows, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bars_kernel, "unchanged", lambda *_: 0)
        assert made_of(rows, []) == short


def test_a_recording_of_the_wanted_bars_is_passed_on_itself() -> None:
    rows = recording([0] * 8, 99, False)
    frame = Frame("f", 0, 0, ("A", "B"), {"recorded": rows})
    assert Bars(BarsConfig((MINUTE_NS,))).step(frame).tables["bars"] is rows
    assert Bars(BarsConfig((MINUTE_NS, 5 * MINUTE_NS))).step(replace(frame)).tables["bars"] is not rows
