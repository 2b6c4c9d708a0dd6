"""A live run in the archive: its figures, the ticks behind an order, and what the audit can and cannot verify there."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.stored import audit_verify_command, explain_command, report_command, runs_compare_command, runs_list_command, runs_show_command
from dataflows.archive import run_archive
from operators.desk.audit import BLOCK
from research.running import STOPPED, Running
from research.stored import StoredRun, opened
from research.stored_live import BY_POSITION, BY_TIME, ticks_of
from schemas.config_live import KafkaConfig
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.ids import id_text
from schemas.money import UNITS
from schemas.tables import BARS, TRADES, Rows, TableSpec
from schemas.tables_desk import DECISIONS, EQUITY, FILLS
from tests.live_runs import command, ingest, market, plan_for, ready, run
from tests.warehouse_running import warehouse_url

STOPPED_RUN, CUT_RUN = f"stopped-{os.getpid()}", f"cut-{os.getpid()}"


@pytest.fixture(scope="module")
def frames(servers: str, tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """Two live runs over the same topics, archived: one that was stopped in good order, one that never said that it ended."""
    kafka = KafkaConfig(servers=servers, prefix=f"stored{os.getpid()}.")
    folder = tmp_path_factory.mktemp("live")
    ready(kafka)
    command(kafka)
    ingest(kafka, market(6, 4.0, 7))
    made = plan_for(kafka, folder)
    left = run(made, STOPPED_RUN, command="penstock run paper")
    say = Running.say
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Running, "say", lambda self, state, first=False: None if state == STOPPED else say(self, state, first))
        run(made, CUT_RUN)
    run_archive(kafka, warehouse_url(), once=True)
    return left


def of(frames: list[Frame], spec: TableSpec) -> Rows:
    return np.concatenate([f.rows(spec) for f in frames])


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", [STOPPED_RUN, CUT_RUN], ids=["stopped", "cut"])
def test_its_figures_come_from_its_tables(frames: list[Frame], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fills, equity = of(frames, FILLS), of(frames, EQUITY)
    trips = fills["trade_pnl"][fills["closed"] == 1] / UNITS
    pnl = f"{(int(equity['equity'][-1]) - 10_000_000_000_000) / UNITS:.8f}"
    assert (trips > 0).any() and (trips < 0).any()
    runs_show_command(name, warehouse_url(), True)
    shown = printed(capsys)
    assert shown["pnl"] == pnl and float(shown["fees"]) == pytest.approx(fills["fee"].sum() / UNITS, abs=1e-9)
    assert shown["trades"] == len(trips) and shown["win_rate"] == (trips > 0).sum() / len(trips)
    assert shown["profit_factor"] == pytest.approx(trips[trips > 0].sum() / -trips[trips < 0].sum())
    assert sum(shown["refusals"].values()) == (of(frames, DECISIONS)["approved"] == 0).sum()
    assert shown["counts"]["bars"] == len(of(frames, BARS)) and shown["counts"]["fills"] == len(fills)
    assert shown["rows"] >= len(of(frames, TRADES)) > 0
    runs_list_command(warehouse_url(), True)
    listed = {r["run_id"]: r for r in printed(capsys)["runs"]}[name]
    assert (listed["pnl"], listed["trades"], listed["rows"]) == (pnl, len(trips), shown["rows"])
    assert listed["state"] == ("stopped" if name == STOPPED_RUN else "running")


def test_it_has_a_report_and_can_be_shown_to_people(frames: list[Frame], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_command(STOPPED_RUN, str(tmp_path / "r.html"), warehouse_url(), False)
    html = (tmp_path / "r.html").read_text()
    assert "Largest drawdown" in html and "rows/s" not in html.split("<body>")[1] and "A live run has none; penstock parity" in html
    runs_show_command(STOPPED_RUN, warehouse_url(), False)
    assert "P&L" in capsys.readouterr().out


def test_it_has_no_hashes_to_compare_and_says_what_does(frames: list[Frame]) -> None:
    with pytest.raises(UserError, match=f"run {STOPPED_RUN} has no stage hashes: .*penstock parity {STOPPED_RUN}"):
        runs_compare_command(STOPPED_RUN, STOPPED_RUN, warehouse_url(), True)


def test_an_order_leads_back_to_the_ticks_of_its_bar(frames: list[Frame], capsys: pytest.CaptureFixture[str]) -> None:
    trades, bars, names = of(frames, TRADES), of(frames, BARS), frames[-1].symbols
    decisions = of(frames, DECISIONS)
    seen = 0
    for decision in decisions[decisions["interval_ns"] > 0][:12]:
        order = id_text(int(decision["order_id"]))
        story = StoredRun(warehouse_url(), STOPPED_RUN).explain(order)
        mine = bars[(bars["symbol"] == decision["symbol"]) & (bars["ts_open_ns"] == decision["ts_open_ns"])
                    & (bars["interval_ns"] == decision["interval_ns"]) & (bars["bar_kind"] == 0)]
        assert story["ticks_found_by"] == BY_TIME
        for key, at in (("first_tick", "first_seq"), ("last_tick", "last_seq")):
            true = trades[trades["seq"] == mine[at][0]][0]
            found = story[key]
            assert found["symbol"] == names[true["symbol"]]
            assert [found[k] for k in ("ts_event_ns", "price", "size", "trade_id")] == [true[k] for k in ("ts_event_ns", "price", "size", "trade_id")]
            seen += 1
        assert story["signal"]["seq"] == story["decision"]["seq"] and story["features"]
    assert seen >= 6
    explain_command(order, STOPPED_RUN, warehouse_url(), False)
    assert f"found by {BY_TIME}" in " ".join(capsys.readouterr().out.split())


def test_a_replay_finds_them_by_position() -> None:

    class Positions:
        """A run whose market rows carry tape positions."""

        def __init__(self) -> None:
            self.data: dict[str, Any] = {}

        def one(self, spec: TableSpec, where: str, q: int) -> dict[str, Any] | None:
            return {"seq": q} if spec is TRADES else None

    assert ticks_of(Positions(), {"first_seq": 3, "last_seq": 9}) == ([{"seq": 3}, {"seq": 9}], BY_POSITION)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [STOPPED_RUN, CUT_RUN], ids=["stopped", "cut"])
def test_the_audit_verifies_what_is_stored_and_names_what_is_not(frames: list[Frame], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(of(frames, TRADES)) > BLOCK  # the chain has blocks of them, and the archive no rows under this run
    assert audit_verify_command(name, warehouse_url(), True) == 0
    found = printed(capsys)
    unknown = {stream for stream, s in found["streams"].items() if s["ok"] is None}
    unordered = {"bars", "signals"} if name == CUT_RUN else set()
    assert found["ok"] and unknown == {"trades", "quotes", "control", "reports"} | unordered
    assert found["streams"]["trades"]["blocks"] > 0 and all(found["streams"][stream]["why"] for stream in unknown)
    assert found["streams"]["fills"]["records"] == len(of(frames, FILLS)) and found["streams"]["ledger"]["ok"]
    assert audit_verify_command(name, warehouse_url(), False) == 0
    out = capsys.readouterr().out
    assert "not verified" in out and f"penstock parity {name}" in out


def test_the_audit_still_finds_a_changed_record(frames: list[Frame]) -> None:
    assert len(of(frames, BARS)) > BLOCK
    client = opened(warehouse_url())
    first = client.command(f"SELECT min(seq) FROM bars WHERE run_id = '{STOPPED_RUN}' AND symbol = '{frames[-1].symbols[0]}'")
    client.command(f"ALTER TABLE bars UPDATE close = close + 1 WHERE run_id = '{STOPPED_RUN}' AND seq = {first} SETTINGS mutations_sync = 2")
    client.close()
    found = StoredRun(warehouse_url(), STOPPED_RUN).verify()
    assert not found["ok"] and found["broken"]["stream"] == "bars" and found["broken"]["block"] == 0
