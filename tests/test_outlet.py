"""What leaves the pipeline when: new orders at once, the rest of a few frames together, nothing before its journal is safe."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import research.running as running
from research.replaying import make_plan
from schemas.config_live import KafkaConfig
from schemas.frame import FeatureRows, Frame, together
from schemas.tables import BARS, TRADES, TableSpec
from schemas.tables_desk import FILLED, FILLS, NEW, ORDERS
from schemas.tables_live import APPROVED


class Sink:
    """Takes what a broker would, and says in which order."""

    def __init__(self, *_: Any) -> None:
        self.log: list[tuple[str, list[int]]] = []

    def write_frame(self, frame: Frame, _: Any, tables: tuple[TableSpec, ...]) -> None:
        for spec in tables:
            if len(frame.rows(spec)):
                self.log.append((spec.name, frame.rows(spec)["seq"].tolist()))

    def acknowledged(self) -> bool:
        self.log.append(("acknowledged?", []))
        return False

    def flush(self) -> None:
        self.log.append(("flush", []))

    def close(self) -> None:
        self.log.append(("close", []))


@pytest.fixture
def outlet(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(running, "KafkaSink", Sink)
    made = running.KafkaOutlet(KafkaConfig("nowhere:1"), "r", make_plan(None, ()), lambda: made.sink.log.append(("settle", [])))  # type: ignore[attr-defined]
    return made


def frame(number: int, **tables: list[int]) -> Frame:
    """A frame whose tables have a row for each place on the tape; negative numbers are orders that are filled."""
    specs = {"orders": ORDERS, "fills": FILLS, "approved": APPROVED, "trades": TRADES, "bars": BARS}
    rows = {}
    for name, seqs in tables.items():
        rows[name] = specs[name].empty(len(seqs))
        rows[name]["seq"] = np.abs(seqs)
        if name == "orders":
            rows[name]["state"] = np.where(np.array(seqs) < 0, FILLED, NEW)
    return Frame("tape", number, 0, ("A",), rows)


def tables(outlet: Any) -> list[tuple[str, list[int]]]:
    return [entry for entry in outlet.sink.log if entry[1]]


def test_a_new_order_leaves_at_once_and_behind_the_states_of_older_ones(outlet: Any) -> None:
    outlet.write(frame(0, orders=[-1], fills=[1]))
    assert outlet.sink.log == []
    outlet.write(frame(1, orders=[2, -2], fills=[2]))
    assert outlet.sink.log == [("settle", []), ("orders", [1, 2, 2])]
    outlet.flush()
    assert outlet.sink.log[2:] == [("settle", []), ("acknowledged?", []), ("flush", []), ("fills", [1, 2]), ("flush", [])]


def test_an_approval_leaves_at_once(outlet: Any) -> None:
    outlet.write(frame(0, approved=[1], bars=[1]))
    assert outlet.sink.log == [("settle", []), ("approved", [1])]


def test_the_rest_leaves_after_so_many_frames_or_rows_or_so_long(outlet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(running.HELD_FRAMES - 1):
        outlet.write(frame(k, bars=[k + 1]))
    assert tables(outlet) == []
    outlet.write(frame(9, bars=[9]))
    assert tables(outlet) == [("bars", [*range(1, running.HELD_FRAMES), 9])]
    outlet.write(frame(10, bars=list(range(10, 10 + running.HELD_ROWS))))
    assert len(tables(outlet)) == 2
    clock = [100.0]
    monkeypatch.setattr(running.time, "monotonic", lambda: clock[0])
    outlet.write(frame(11, bars=[9_000]))
    clock[0] += 2 * running.HELD_S
    outlet.write(frame(12, bars=[9_001]))
    assert tables(outlet)[2] == ("bars", [9_000, 9_001])


def test_at_the_end_everything_has_left_before_the_broker_is_let_go(outlet: Any) -> None:
    outlet.write(frame(0, orders=[-3], bars=[3]))
    outlet.close()
    assert tables(outlet) == [("orders", [3]), ("bars", [3])]
    assert outlet.sink.log[0] == ("settle", []) and outlet.sink.log[-1] == ("close", [])


@given(st.lists(st.tuples(st.lists(st.integers(-9, 9).filter(bool), max_size=3), st.integers(0, 3)), max_size=40), st.sets(st.integers(0, 39)))
def test_every_row_leaves_once_in_its_order_and_its_journal_first(given_frames: list[tuple[list[int], int]], flushes: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "KafkaSink", Sink)
        settled: list[int] = []
        made = running.KafkaOutlet(KafkaConfig("nowhere:1"), "r", make_plan(None, ()), lambda: settled.append(at))
        sink: Any = made.sink
        wanted: dict[str, list[int]] = {"orders": [], "bars": []}
        for at, (orders, bars) in enumerate(given_frames):
            seqs = [at * 10 + k for k in range(bars)]
            before = len(tables(made))
            made.write(frame(at, orders=orders, bars=seqs))
            wanted["orders"] += [abs(n) for n in orders]
            wanted["bars"] += seqs
            left = [n for name, rows in tables(made) if name == "orders" for n in rows]
            if any(n > 0 for n in orders):
                assert left == wanted["orders"]
            assert len(tables(made)) == before or settled[-1] == at
            if at in flushes:
                made.flush()
                assert [n for name, rows in tables(made) if name == "bars" for n in rows] == wanted["bars"]
        at = len(given_frames)
        made.close()
        for name, rows in wanted.items():
            assert [n for table, found in tables(made) if table == name for n in found] == rows
        assert sink.log[-1] == ("close", [])


def test_frames_together_keep_rows_features_and_names() -> None:
    bars = BARS.empty(3)
    bars["seq"] = [1, 2, 3]
    one = Frame("tape", 0, 5, ("A",), {"bars": bars[:1]}, (FeatureRows(60, ("x",), bars[:1], np.array([[1.0]])),))
    two = Frame("tape", 1, 7, ("A", "B"), {"bars": bars[1:], "trades": TRADES.empty(1)},
                (FeatureRows(60, ("x",), bars[1:], np.array([[2.0], [3.0]])), FeatureRows(300, ("y",), bars[:0], np.empty((0, 1)))))
    whole = together([one, two], (BARS, ORDERS))
    assert (whole.number, whole.frontier_ns, whole.symbols, set(whole.tables)) == (1, 7, ("A", "B"), {"bars"})
    assert whole.tables["bars"].tobytes() == bars.tobytes()
    assert [(f.interval_ns, f.names, f.bars["seq"].tolist(), f.values.tolist()) for f in whole.features] == [
        (60, ("x",), [1, 2, 3], [[1.0], [2.0], [3.0]])]
