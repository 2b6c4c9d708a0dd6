"""Learning as the trader sees it: the report's sections on models against plain references, and an order that tells which model made it."""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest, spearmanr

from cli.replaying import replay_command
from cli.stored import explain_command
from research.learning.registry import Registry
from research.model_numbers import Learning, Record, at_entry, course, models_seen, records, shares, wilson
from research.report import ReportData, report_html
from research.report_numbers import floats, ints, round_trips, texts
from research.report_page import money
from research.stored import StoredRun
from schemas.codec import to_arrow
from schemas.config_models import ModelConfig
from schemas.tables import Rows, TableSpec
from schemas.tables_desk import DECISIONS, FILLS
from schemas.tables_models import DRIFT, LABELS, MODEL_TABLES, PREDICTIONS, SCORES, SWITCHES, VOTES
from sources.simulator import simulate
from tests.test_learners_operator import LOGIT, TREE, VOTE, booster
from tests.test_report import HOSTILE, MINUTE_NS, START_NS, SYMBOLS, TRIPS, Page, data, fills
from tests.warehouse_running import warehouse_url

TITLES = ("Models over time", "Models by symbol and regime", "Calibration of the models", "Drift", "Votes", "Versions, and the trades that they led to")
RUN = f"models-{os.getpid()}"
RULE = {"name": "votes", "timeframe": "1m", "entry": {"long": "vote.p_up > 0.5", "short": "vote.p_up < 0.5"},
        "exit": {"long": "vote.p_up < 0.5", "short": "vote.p_up > 0.5"}, "hold_bars": 5}
DOCUMENT = {"models": {"logit": {**LOGIT, "scope": "pooled"}, "tree": TREE, "trees": {"kind": "registered", "name": "trees"},
                       "vote": {**VOTE, "members": ["logit", "tree", "trees"]}},
            "strategies": [RULE, {"name": "plain", "timeframe": "1m", "entry": "ret(1) > 0", "exit": "ret(1) < 0", "hold_bars": 3}],
            "validator": {"model": "vote", "hits_min": 0.1, "labels_min": 50, "edge_min": 0.0, "notional": 0.0, "volatility_max": 1.2}}
NAMES = ("s", "up", "line", "vote")
"""Of the tables made by hand: a strategy and three models."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredRun]:
    """A recorded replay with models, in whose middle version 2 of one of them took over."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_MODELS", str(folder / "models"))
        registry = Registry(folder / "models")
        for seed in (1, 2):
            registry.register(booster(seed))
        begin, end = simulate(3, 4, 7).ts_range
        registry.promote("trees", 1, effective_ns=begin - 1, backdate=True)
        registry.promote("trees", 2, effective_ns=(begin + end) // 2, backdate=True)
        (folder / "models.yaml").write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
        replay_command(["sim:3:4:7"], str(folder / "models.yaml"), None, warehouse_url(), RUN, "loop", 1, None, None, None,
                       str(folder / "r.html"), True)
        yield StoredRun(warehouse_url(), RUN)


def scores(n: int = 400, seed: int = 3) -> Rows:
    """Scores of a classifier `up` and a regressor `line`, each second of them in shadow; some have no direction."""
    rng = np.random.default_rng(seed)
    rows = SCORES.empty(2 * n)
    rows["ts_event_ns"] = START_NS + np.arange(2 * n) * MINUTE_NS
    rows["ts_open_ns"], rows["seq"], rows["symbol"] = rows["ts_event_ns"] - 5 * MINUTE_NS, np.arange(2 * n), rng.integers(0, 2, 2 * n)
    rows["model"], rows["role"], rows["regime"] = 1 + np.arange(2 * n) % 2, np.arange(2 * n) // 2 % 2, rng.integers(0, 3, 2 * n)
    rows["value"] = rows["return_"] = rng.normal(size=2 * n) * 0.01
    rows["up"] = rows["value"] > 0
    p = np.clip(0.5 + 8 * rows["value"] + rng.normal(size=2 * n) * 0.2, 0.02, 0.98)
    neither = np.arange(2 * n) % 17 < 2
    p[neither] = 0.5
    line = rows["model"] == 2
    rows["score"], rows["p_up"] = np.where(line, p - 0.5, p), np.where(line, np.nan, p)
    rows["hit"] = np.where(neither, -1, (p > 0.5) == (rows["up"] == 1))
    rows["loss"] = np.where(line, (rows["score"] - rows["value"]) ** 2, -np.log(np.where(rows["up"] == 1, p, 1 - p)))
    return rows


def learning(**rows: Rows) -> Learning:
    """Two models with these tables, the others empty; every score has its prediction."""
    made = rows["scores"]
    said = PREDICTIONS.empty(len(made) + 30)  # the last are of bars on which the models warmed up
    for column in ("ts_event_ns", "seq", "symbol", "model", "ts_open_ns", "role", "score", "p_up"):
        said[column][:len(made)] = made[column]
    said["state"][:len(made):3] = 5  # stopped
    said["model"][len(made):], said["state"][len(made):] = 1, 1
    tables = {spec.name: rows.get(spec.name, spec.empty(0)) for spec in MODEL_TABLES} | {"predictions": rows.get("predictions", said)}
    specs: dict[str, TableSpec] = {spec.name: spec for spec in MODEL_TABLES}
    return Learning((ModelConfig("up", "registered", features=("a", HOSTILE), initial=1), ModelConfig("line", "river", task="regress"),
                     ModelConfig("vote", "ensemble", members=("up", "line"))),
                    {k: to_arrow(specs[k], v, SYMBOLS, NAMES) for k, v in tables.items()}, {"s": ("up", "line", "vote")}, 0.001)


@pytest.mark.parametrize("hits, rows", [(0, 1), (1, 1), (3, 10), (530, 1000), (0, 50)])
def test_the_interval_is_wilsons(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert all(math.isnan(v) for v in wilson(0, 0))


def test_the_quality_of_a_model_is_that_of_its_scores() -> None:
    rows = scores()
    found = {r.label: r for r in records(learning(scores=rows))}
    assert list(found) == ["up", "up (shadow)", "line", "line (shadow)"]
    for label, code, role in (("up", 1, 0), ("up (shadow)", 1, 1), ("line", 2, 0)):
        mine = [r for r in rows if r["model"] == code and r["role"] == role]
        decided = [r for r in mine if r["hit"] >= 0]
        q = found[label].quality(0.001)
        follow = [r["return_"] * (1 if bool(r["up"]) == (r["hit"] == 1) else -1) for r in decided]
        assert (q["rows"], q["decided"], q["hits"]) == (len(mine), len(decided), sum(int(r["hit"]) for r in decided))
        assert len(mine) > len(decided)
        assert q["net"] == pytest.approx(sum(follow) / len(follow) - 0.002)
        assert q["ic"] == pytest.approx(spearmanr([r["score"] for r in mine], [r["value"] for r in mine]).statistic)
        if code == 1:
            assert q["log_loss"] == pytest.approx(sum(r["loss"] for r in mine) / len(mine))
            assert q["brier"] == pytest.approx(sum((r["p_up"] - r["up"]) ** 2 for r in mine) / len(mine))
        else:
            assert math.isnan(q["log_loss"])
    up = found["up"]
    assert up.states["warming"] == 30 and up.abstained == 30 + up.states["stopped"] and up.predictions == sum(up.states.values())


def test_shares_by_symbol_and_regime_add_up() -> None:
    up = next(r for r in records(learning(scores=scores())) if r.label == "up")
    told = dict(shares(up, 12))
    assert list(told)[-1] == "all" and set(told) == {*SYMBOLS, "all"}
    for name, cells in told.items():
        assert cells[3] == (sum(c[0] for c in cells[:3]), sum(c[1] for c in cells[:3])), name
    assert told["all"][3] == (int((up.hit == 1).sum()), int((up.hit >= 0).sum()))
    few = dict(shares(up, 1))
    assert set(few) == {max(SYMBOLS, key=lambda s: told[s][3][1]), "1 others", "all"} and few["all"] == told["all"]


def test_the_course_is_the_mean_of_each_window() -> None:
    rng = np.random.default_rng(5)
    ts = np.sort(rng.integers(0, 12_000, 900))
    values = np.where(rng.random(900) < 0.2, np.nan, rng.normal(size=900))
    values[(ts > 5_000) & (ts < 7_000)] = np.nan
    ends, means = course(ts, values, 0, 12_000)
    assert ends[0] == 1000 and ends[-1] == 12_000 and np.isnan(means).any()
    for end, mean in zip(ends.tolist(), means.tolist(), strict=True):
        inside = [v for t, v in zip(ts.tolist(), values.tolist(), strict=True) if end - 1000 < t <= end and not math.isnan(v)]
        assert math.isnan(mean) if len(inside) < 20 else mean == pytest.approx(sum(inside) / len(inside))


def test_a_trade_stands_under_the_version_that_its_entry_saw() -> None:
    """Version 2 takes over at seq 50; a prediction in shadow, one of the other symbol and one after the decision are not what was seen."""
    said = PREDICTIONS.empty(6)
    said["seq"], said["version"], said["role"] = (10, 40, 40, 50, 60, 61), (1, 1, 9, 2, 2, 8), (0, 0, 1, 0, 0, 0)
    said["symbol"], said["model"] = (0, 0, 0, 0, 0, 1), 1
    made = fills([(0, 0, 100, 110), (0, 0, 100, 90), (0, 0, 100, 95)])
    made["order_id"] = np.arange(1, 7)
    decisions = DECISIONS.empty(3)
    decisions["order_id"], decisions["seq"] = (3, 1, 77), (50, 49, 70)  # the third trip's entry had no decision
    arrow = to_arrow(DECISIONS, decisions, SYMBOLS, NAMES)
    shown = to_arrow(FILLS, made, SYMBOLS, NAMES)
    known = learning(scores=scores(4), predictions=said)
    entries = {e.model: e for e in at_entry(known, round_trips(shown), shown, arrow)}
    assert entries["up"].trips.tolist() == [0, 1] and entries["up"].row.tolist() == [1, 3]
    assert entries["line"].trips.tolist() == [] and entries["vote"].trips.tolist() == []


def made_by_hand() -> Learning:
    drift = DRIFT.empty(3)
    drift["ts_event_ns"], drift["model"], drift["feature"], drift["detector"] = START_NS + np.arange(3) * MINUTE_NS, 1, (1, 0, -1), (4, 5, 6)
    drift["symbol"] = (-1, 1, -1)
    switches = SWITCHES.empty(2)
    switches["ts_event_ns"], switches["model"], switches["version"], switches["previous"] = START_NS + np.array([9, 19]) * MINUTE_NS, 1, (2, 3), (1, 2)
    switches["outcome"] = (0, 1)
    votes = VOTES.empty(4)
    votes["ts_event_ns"], votes["model"], votes["verdict"], votes["direction"] = START_NS + np.arange(4) * MINUTE_NS, 3, (0, 0, 1, 3), (1, -1, 0, 0)
    votes["member_weight"][:, :2] = (0.25, 0.75)
    return learning(scores=scores(), drift=drift, switches=switches, votes=votes)


def test_the_page_has_every_section_and_names_what_drifted() -> None:
    html = report_html(replace(data(TRIPS), learning=made_by_hand()))
    page = Page(html)
    assert all(title in page.text for title in ("Models", *TITLES)) and page.loads == []
    assert f"up: {HOSTILE}" in page.text and "up: a" in page.text and "up: its losses" in page.text and "<img src=x" not in html
    assert "performance" in page.text and "page hinkley" not in page.text
    assert {f"figure-models-{k}" for k in ("course", "calibration", "drift", "weights-0", "versions")} == set(re.findall(r'id="(figure-models-[^"]+)"', html))
    assert re.search(r"vote 4 2 1 0 1 0 1 1\b", page.text)  # votes, by verdict, up, down
    drawn = html.split("<body>")[1]
    assert "version 1" in drawn and "version 2" in drawn and "version 3" not in drawn  # the third was refused
    assert report_html(replace(data(TRIPS), learning=made_by_hand())) == html


def test_a_run_without_models_has_none_of_it() -> None:
    html = report_html(data(TRIPS))
    assert "models-" not in html and "Drift" not in Page(html).text


@pytest.mark.parametrize("trips", [TRIPS, []])
def test_models_that_said_nothing_are_told_as_such(trips: Any) -> None:
    none = learning(scores=SCORES.empty(0), predictions=PREDICTIONS.empty(0))
    text = Page(report_html(replace(data(trips), learning=none))).text
    assert "No model has said anything" in text and "No detector raised an alarm" in text and "nan" not in text.lower().split()


def test_a_stored_run_tells_its_learning(stored: StoredRun) -> None:
    made = ReportData.from_run(stored)
    assert made.learning is not None and made.learning.fee_taker == 0.001
    assert all(made.learning.tables[s.name].num_rows for s in (PREDICTIONS, LABELS, SCORES, VOTES, SWITCHES))
    text = Page(report_html(made)).text
    assert all(title in text for title in TITLES)
    trips = round_trips(made.fills)
    entries = {(e.strategy, e.model): e for e in at_entry(made.learning, trips, made.fills, made.decisions)}
    assert set(entries) == {("votes", m) for m in ("logit", "tree", "trees", "vote")}  # the other strategy looks at no model
    trees = entries["votes", "trees"]
    of = ints(made.learning.tables["predictions"], "version")[trees.row]
    changed = int(ints(made.learning.tables["switches"], "ts_event_ns")[0])
    before = trips.ts_entry[trees.trips] <= changed
    assert set(of[before]) == {1} and set(of[~before & (trips.ts_entry[trees.trips] > changed + 2 * MINUTE_NS)]) == {2}
    assert len(trees.trips) == (trips.strategy == "votes").sum() > 10
    for version in (1, 2):
        assert money(float(trips.pnl[trees.trips[of == version]].sum()), sign=True) in text


def test_records_are_what_the_scores_say(stored: StoredRun) -> None:
    known = Learning.of(stored)
    assert known is not None
    found: dict[str, Record] = {r.label: r for r in records(known)}
    table = known.tables["scores"]
    assert set(found) == {"logit", "tree", "trees", "vote"}
    for name, record in found.items():
        said = (texts(table, "model") == name) & np.isfinite(floats(table, "p_up"))
        assert len(record.outcomes) == said.sum() > 100 and (record.hit == 1).sum() == (ints(table, "hit")[said] == 1).sum()
    assert models_seen(stored.plan, stored.plan.specs[0]) == ("logit", "tree", "trees", "vote")


@pytest.mark.parametrize("approved", [True, False])
def test_an_order_tells_which_versions_made_it(stored: StoredRun, approved: bool, capsys: pytest.CaptureFixture[str]) -> None:
    decisions = [d for d in stored.decisions.to_pylist() if d["strategy"] == "votes" and d["action"] != "exit" and d["approved"] is approved]
    predictions = stored.table(PREDICTIONS).to_pylist()
    for d in (decisions[0], decisions[-1]):
        explain_command(d["order_id"], RUN, warehouse_url(), True)
        story = json.loads(capsys.readouterr().out)
        seen = {p["model"]: p for p in story["predictions"]}
        assert list(seen) == ["logit", "tree", "trees"] and {p["role"] for p in seen.values()} == {"active"}
        for name, told in seen.items():
            true = next(p for p in predictions if p["model"] == name and (p["symbol"], p["seq"]) == (d["symbol"], d["seq"]))
            assert (told["version"], told["learned"], told["ts_open_ns"]) == (true["version"], true["learned"], d["ts_open_ns"])
        vote, = story["votes"]
        assert [m["model"] for m in vote["members"]] == ["logit", "tree", "trees"] and vote["named"] and not seen["trees"]["named"]
        assert vote["members"][2]["version"] == seen["trees"]["version"] and sum(m["weight"] for m in vote["members"]) == pytest.approx(1.0)
        assert (vote["p_up"] > 0.5) == d["action"].endswith("long")
        assert [v["layer"] for v in story["validation"]["layers"]] == ["statistics", "regime", "size", "correlation", "cost"]
        assert story["validation"]["passed"] or d["reason"] != "approved"
        assert d["reason"] != "validation" or not story["validation"]["passed"]
    explain_command(decisions[-1]["order_id"], RUN, warehouse_url(), False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "models, as the rule could see them" in printed and "vote of vote:" in printed and "signal validator:" in printed


def test_an_order_of_a_rule_without_models_names_none(stored: StoredRun) -> None:
    order = next(d["order_id"] for d in stored.decisions.to_pylist() if d["strategy"] == "plain")
    story = stored.explain(order)
    assert [v["model"] for v in story["votes"]] == ["vote"]  # the validator watches it
    assert not any(told["named"] for told in (*story["votes"], *story["predictions"]))
