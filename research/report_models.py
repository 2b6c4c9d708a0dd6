"""The part of the report that is about models: what they said, how it came out, what drifted, how they voted, which version was live.

A run without models has no such part. What could not be measured is a dash, never a number made up.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from research.learning.evaluation import REGIMES
from research.model_numbers import ROWS_MIN, WINDOWS, Entries, Learning, Record, at_entry, records, shares, wilson
from research.report_models_figures import calibration_figure, column, course_figure, drift_figure, versions_figure, weights_figure
from research.report_numbers import floats, ints, profit_factor, texts, win_rate
from research.report_page import DASH, Html, cell, count, duration, gain, money, para, percent, ratio, section, signed, table, toned, when
from schemas.tables_models import PREDICTION_STATES, ROLES, VERDICTS

if TYPE_CHECKING:
    from research.report_sections import Digest

SYMBOLS_SHOWN = 12
TRIPS_SHOWN = 200
SWITCHES_SHOWN = 100
DRIFT_LINES = 40


def models(d: "Digest") -> str:
    """All sections about models, nothing where the run has none."""
    learning = d.data.learning
    if learning is None:
        return ""
    found = records(learning)
    begin, end = d.ts_range or (0, 0)
    return (_quality(learning, found) + _course(found, begin, end) + _groups(found) + _calibration(found) + _drift(learning) + _votes(learning)
            + _versions(d, learning, begin, end))


def _number(value: float, digits: int = 4) -> str:
    return signed(f"{value:.{digits}f}") if math.isfinite(value) else DASH


def _quality(learning: Learning, found: Sequence[Record]) -> str:
    rows, silent = [], []
    for r in found:
        q = r.quality(learning.fee_taker)
        low, high = wilson(int(q["hits"]), int(q["decided"]))
        right = q["hits"] / q["decided"] if q["decided"] else None
        rows.append((r.label, count(r.predictions), percent(r.abstained / r.predictions), count(int(q["decided"])), percent(right),
                     f"{100 * low:.1f} to {100 * high:.1f} %" if q["decided"] else DASH, _number(q["log_loss"]), _number(q["brier"]),
                     _number(q["calibration_error"]), _number(q["ic"]), toned(_bps(q["net"]), q["net"])))
        if r.config.kind != "ensemble":
            silent.append((r.label, *(count(r.states.get(s, 0)) for s in PREDICTION_STATES)))
    if not rows:
        return section("models", "Models", para("No model has said anything: no bar of their timeframes has closed."))
    heads = ("Model", "Predictions", "Abstained", "Directions", "Right", "95 % interval", "Log loss", "Brier", "Calibration error", "IC", "Net, bps")
    words = (f"Right: of the directions whose label is known; its interval is Wilson's and takes labels as independent, which overlapping ones are not, so it "
             f"is too narrow. Chance has a log loss of {math.log(2):.4f} and a Brier score of 0.25. IC: rank correlation of the score and the label. "
             f"Net: mean log return to the label's end when every direction is followed, less the policy's taker fee of "
             f"{learning.fee_taker * 1e4:g} bps in and out.")
    states = table(("Model", *(s.replace("_", " ") for s in PREDICTION_STATES)), silent) if silent else ""
    return section("models", "Models", table(heads, rows), para(words), f"<h3>Predictions by state</h3>{states}" if silent else "",
                   para("In all states but ok a model abstains. Missing: a feature is not a number yet. Warming: too few labels learned. "
                        "Stopped: it was right too rarely of late; nothing acts on it, and what it would have said counts in the table above.") if silent else "")


def _bps(value: float) -> str:
    return signed(f"{value * 1e4:+.2f}") if math.isfinite(value) else DASH


def _course(found: Sequence[Record], begin: int, end: int) -> str:
    known = [r for r in found if len(r.outcomes) >= ROWS_MIN]
    if not known:
        return ""
    return section("models-course", "Models over time", course_figure(known, begin, end),
                   para(f"Each point is of the labels that became known in the {duration((end - begin) / WINDOWS)} before it, where these are {ROWS_MIN} or more; "
                        "the dotted lines are chance."))


def _share(hits: int, rows: int) -> Html:
    """A share as a cell of a heat map: the colour says how far from chance, paler where the interval holds chance."""
    if not rows:
        return Html(DASH)
    low, high = wilson(hits, rows)
    tone, size = ("10,125,79", hits / rows - 0.5) if hits * 2 >= rows else ("192,54,44", 0.5 - hits / rows)
    alpha = min(0.5, 4 * size) if low > 0.5 or high < 0.5 else min(0.12, size)
    return Html(f'<span style="display:block;padding:0 6px;border-radius:3px;background:rgba({tone},{alpha:.2f})">{cell(percent(hits / rows))} '
                f'<small>of {count(rows)}</small></span>')


def _groups(found: Sequence[Record]) -> str:
    rows: list[tuple[object, ...]] = []
    for r in found:
        for k, (name, cells) in enumerate(shares(r, SYMBOLS_SHOWN) if (r.hit >= 0).any() else []):
            rows.append((r.label if not k else "", name, *(_share(*c) for c in cells)))
    if not rows:
        return ""
    return section("models-groups", "Models by symbol and regime", table(("Model", "Symbol", *REGIMES, "all regimes"), rows, words=2),
                   para("Share of right directions, of how many. A strong colour is a share whose 95 % interval leaves chance out. The regime is that of the "
                        "symbol's daily volatility at the bar: calm below 2 %, volatile from 5 % on."))


def _calibration(found: Sequence[Record]) -> str:
    said = [r for r in found if r.outcomes.task == "classify" and len(r.outcomes)]
    if not said:
        return ""
    return section("models-calibration", "Calibration of the models", calibration_figure(said),
                   para(f"Ten bins of the probability that was said, those of {ROWS_MIN} labels or more; a larger mark is more labels. On the dotted line "
                        "what was said came true as often as that."))


def _drift(learning: Learning) -> str:
    drift = learning.tables["drift"]
    if not drift.num_rows:
        return section("models-drift", "Drift", para("No detector raised an alarm."))
    model, feature = texts(drift, "model"), ints(drift, "feature")
    features = {m.name: m.features for m in learning.models}
    whats = [f"{m}: {features[m][f]}" if 0 <= f < len(features[m]) else f"{m}: its losses" for m, f in zip(model.tolist(), feature.tolist(), strict=True)]
    detector, action, ts = texts(drift, "detector"), texts(drift, "action"), ints(drift, "ts_event_ns")
    statistic, bound = floats(drift, "statistic"), floats(drift, "bound")
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for k, key in enumerate(zip(whats, detector.tolist(), action.tolist(), strict=True)):
        kinds.setdefault(key, []).append(k)
    order = sorted(kinds, key=lambda key: (-len(kinds[key]), key))
    rows = []
    for key in order[:DRIFT_LINES]:
        at = np.array(kinds[key])
        last = at[ts[at].argmax()]
        rows.append((key[0], key[1].replace("_", " "), key[2], count(len(at)), when(ts[at].min(), False), when(ts[last], False), f"{statistic[last]:.4g}",
                     f"{bound[last]:.4g}"))
    more = f" The {DRIFT_LINES} most frequent of {count(len(order))} kinds." if len(order) > DRIFT_LINES else ""
    heads = ("What drifted", "Detector", "What followed", "Alarms", "First (UTC)", "Last (UTC)", "Measured then", "Allowed")
    return section("models-drift", "Drift", drift_figure(drift, whats), table(heads, rows, words=3),
                   para(f"A feature is compared with the window that the active version was trained on; losses with the model's own before.{more}"))


def _votes(learning: Learning) -> str:
    votes = learning.tables["votes"]
    of, verdict, direction, ts = texts(votes, "model"), texts(votes, "verdict"), ints(votes, "direction"), ints(votes, "ts_event_ns")
    rows, figures = [], ""
    for number, m in enumerate(m for m in learning.models if m.kind == "ensemble"):
        mine = np.flatnonzero(of == m.name)
        if len(mine):
            rows.append((m.name, count(len(mine)), *(count(int((verdict[mine] == v).sum())) for v in VERDICTS),
                         count(int((direction[mine] > 0).sum())), count(int((direction[mine] < 0).sum()))))
            weights = column(votes, "member_weight", mine, len(m.members))
            figures += f"<h3>Weights in {cell(m.name)}</h3>" + weights_figure(number, m.members, ts[mine], weights)
    if not rows:
        return ""
    heads = ("Ensemble", "Votes", *(v.replace("_", " ") for v in VERDICTS), "up", "down")
    return section("models-votes", "Votes", table(heads, rows), figures,
                   para("Weights follow the losses of the members' calibrated probabilities, per symbol; drawn is their mean over symbols and short stretches of time."))


def _versions(d: "Digest", learning: Learning, begin: int, end: int) -> str:
    spans = _spans(learning, begin, end)
    switches = learning.tables["switches"]
    rows = []
    names = {k: texts(switches, k) for k in ("model", "role", "outcome")}
    ts, version, previous = (ints(switches, k) for k in ("ts_event_ns", "version", "previous"))
    for k in np.argsort(ts, kind="stable")[::-1][:SWITCHES_SHOWN]:
        rows.append((names["model"][k], names["role"][k], names["outcome"][k], when(ts[k]), str(previous[k] or DASH), str(version[k] or DASH)))
    text = f"The last {SWITCHES_SHOWN} of {count(switches.num_rows)} changes." if switches.num_rows > SWITCHES_SHOWN else "Latest first."
    parts = [versions_figure(spans) if spans else ""]
    if rows:
        parts += [table(("Model", "Role", "Outcome", "Changed (UTC)", "From version", "To version"), rows, words=4), para(text)]
    elif spans:
        parts.append(para("No version changed during the run."))
    entries = at_entry(learning, d.trips, d.data.fills, d.data.decisions)
    return section("models-versions", "Versions, and the trades that they led to", *parts, _by_version(d, learning, entries), _trips(d, learning, entries))


def _spans(learning: Learning, begin: int, end: int) -> list[tuple[str, int, int, int]]:
    """(whose, version, from, to) of every version of a registered model, from the changes that were done."""
    switches = learning.tables["switches"]
    of, role = texts(switches, "model"), texts(switches, "role")
    done = texts(switches, "outcome") == "done"
    ts, version = ints(switches, "ts_event_ns"), ints(switches, "version")
    found = []
    for m in learning.models:
        for said_as in ROLES if m.kind == "registered" else ():
            live, since = (m.initial if said_as == ROLES[0] else 0), begin
            mine = np.flatnonzero((of == m.name) & (role == said_as) & done)
            changes = [(int(ts[k]), int(version[k])) for k in mine[np.argsort(ts[mine], kind="stable")]]
            for at, then in [*changes, (end, 0)]:
                if live and at > since:
                    found.append((m.name if said_as == ROLES[0] else f"{m.name} ({said_as})", live, since, at))
                live, since = then, max(at, since)
    return found


def _by_version(d: "Digest", learning: Learning, entries: Sequence[Entries]) -> str:
    """What the round trips made, by the version that was live when they were entered."""
    version = ints(learning.tables["predictions"], "version")
    rows = []
    for e in entries:
        if learning.config(e.model).kind == "ensemble":
            continue
        of = version[e.row]
        for v in np.unique(of):
            pnl, fee = d.trips.pnl[e.trips[of == v]], d.trips.fee[e.trips[of == v]]
            rows.append((e.strategy, e.model, _version(learning, e.model, int(v)), count(len(pnl)), percent(win_rate(pnl)), ratio(profit_factor(pnl)),
                         gain(float(pnl.mean())), money(float(fee.sum())), gain(float(pnl.sum()))))
    if not rows:
        return para("No round trip was entered on a rule that looks at a model.")
    heads = ("Strategy", "Model", "Version at entry", "Trades", "Win rate", "Profit factor", "Average trade", "Fees", "P&L")
    return (f"<h3>Trades by the version that was live at entry</h3>{table(heads, rows, words=3)}"
            + para("A trade stands under every model that its strategy's rules look at, members of ensembles too; so the rows of a strategy do not add up. "
                   "An online learner has no versions: it is told how often it had been replaced."))


def _version(learning: Learning, model: str, version: int) -> str:
    if learning.config(model).kind == "registered":
        return str(version)
    return f"online, replaced {count(version)}×" if version else "online"


def _trips(d: "Digest", learning: Learning, entries: Sequence[Entries]) -> str:
    """Trade by trade, what each model had said."""
    said: dict[int, list[str]] = {}
    predictions, votes = learning.tables["predictions"], learning.tables["votes"]
    version, learned, state = ints(predictions, "version"), ints(predictions, "learned"), texts(predictions, "state")
    p_up, score, voted, verdict = floats(predictions, "p_up"), floats(predictions, "score"), floats(votes, "p_up"), texts(votes, "verdict")
    shown = set(range(max(len(d.trips) - TRIPS_SHOWN, 0), len(d.trips)))
    for e in entries:
        kind = learning.config(e.model).kind
        for trip, row in zip(e.trips.tolist(), e.row.tolist(), strict=True):
            if trip not in shown:
                continue
            if kind == "ensemble":
                text = f"{e.model} {_number(voted[row], 3)} {str(verdict[row]).replace('_', ' ')}"
            else:
                which = f"v{version[row]}" if kind == "registered" else f"after {count(int(learned[row]))} labels"
                value = p_up[row] if math.isfinite(p_up[row]) else score[row]
                text = f"{e.model} {which} " + (f"{signed(f'{value:.3g}')}" if state[row] == "ok" else str(state[row]).replace("_", " "))
            said.setdefault(trip, []).append(text)
    if not said:
        return ""
    t = d.trips
    rows = [(str(t.strategy[k]), str(t.symbol[k]), "long" if t.long[k] else "short", when(t.ts_entry[k]), "; ".join(said[k]), gain(t.pnl[k]))
            for k in sorted(said, reverse=True)]
    return (f'<h3>What the models said before each entry</h3><div class="long">'
            f'{table(("Strategy", "Symbol", "Side", "Entry (UTC)", "Model, version and probability of up", "P&L"), rows, words=5)}</div>'
            + para(f"At most the last {TRIPS_SHOWN} round trips, latest first. penstock explain ORDER tells it of one order, refused ones too."))
