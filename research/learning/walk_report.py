"""The page of a walk-forward: one HTML file that needs nothing else, made of the document that `--json` prints.

The same document gives the same bytes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from research.report import write_html
from research.report_figures import BAD, GOOD, LINE, MUTED, styled, times
from research.report_page import DASH, SCRIPT, STYLE, cell, count, para, percent, ratio, section, table, tile, toned, when


def walk_html(document: Mapping[str, Any]) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs
    title = f"Walk-forward of {document['model']}"
    data = document["data"]
    facts = [
        ("Data (UTC)", f"{when(data['ts_from_ns'], False)} to {when(data['ts_to_ns'], False)}"),
        ("Symbols", f"{len(data['symbols'])}: {', '.join(data['symbols'][:8])}{', …' if len(data['symbols']) > 8 else ''}"),
        ("Timeframe, horizon", f"{document['timeframe']}, {document['horizon']}"),
        ("Windows", f"{'everything before' if document['anchored'] else document['train']} to train, {document['test']} to test, "
                    f"embargo {document['embargo']}"),
        ("Rows", f"{count(data['rows'])}, {count(len(document['features']))} features"),
    ]
    head = "".join(f"<div><b>{cell(k)}</b><span>{cell(v)}</span></div>" for k, v in facts)
    body = "".join((_tiles(document), _money(document), _windows(document), _symbols(document), _calibration(document)))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{cell(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f'<header class="top"><h1>{cell(title)}</h1><div class="facts">{head}</div></header><main>{body}</main>'
        f"<footer>{para('All times are UTC. Every prediction is of a model that was trained before its window.')}</footer>"
        f"<noscript>{cell('The figures need JavaScript; the tables do not.')}</noscript><script>{SCRIPT}</script></body></html>\n"
    )


def write_walk(document: Mapping[str, Any], path: Path) -> Path:
    """Write the page; UserError where it cannot be written."""
    return write_html(walk_html(document), path)


def _number(value: float | None, digits: int = 4) -> str:
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _tiles(d: Mapping[str, Any]) -> str:
    o, t = d["overall"], d["trading"]
    made = [
        tile("Accuracy", percent(o["accuracy"]), f"of {count(o['decided'])} directions; {percent(o['base_rate'])} of labels were up"),
        tile("Information coefficient", _number(o["ic"]), "rank correlation of prediction and return"),
        tile("AUC", _number(o["auc"]), "0.5 is chance"),
        tile("Log loss", _number(o["log_loss"]), f"chance {math.log(2):.4f}") if d["task"] == "classify" else tile(
            "R²", _number(o["r2"]), "against the mean of what came true"),
        tile("Net return", toned(percent(t["net"], sign=True), t["net"]), f"of the capital, at {t['cost_bps']:g} bps a side"),
        tile("Gross return", toned(percent(t["gross"], sign=True), t["gross"]), "before costs"),
        tile("Break-even cost", f"{_number(t['break_even_cost_bps'], 2)} bps", "a side: what a trade may cost"),
        tile("Sharpe ratio", ratio(t["sharpe"]), f"per {t['period']}, annualised; {count(t['trades'])} trades"),
    ]
    return f'<div class="tiles">{"".join(made)}</div>'


def _money(d: Mapping[str, Any]) -> str:
    ends = np.array([p["ts_ns"] for p in d["periods"]], np.int64)
    figure = go.Figure()
    for key, color, label in (("gross", MUTED, "Before costs"), ("net", LINE, f"After {d['trading']['cost_bps']:g} bps a side")):
        figure.add_scatter(x=times(ends), y=100 * np.cumsum([p[key] for p in d["periods"]]), mode="lines", name=label,
                           line={"color": color, "width": 1.6}, hovertemplate="%{y:.4~g} %")
    figure.update_yaxes(ticksuffix=" %")
    t = d["trading"]
    words = (f"One position per symbol at a time, the same amount each, every symbol with an equal share: opened at the close of the bar "
             f"that was predicted, closed when its label was known. Returns add up. {count(t['trades'])} trades, {percent(t['win_rate'])} "
             f"won, drawdown {percent(t['drawdown'])} of the capital, {_number(t['gross_bps_per_trade'], 2)} bps before costs. Fills "
             "are at the close, without spread or size: `penstock replay` has those.")
    return section("money", "What following it would have earned", styled(figure, 340, "figure-walk-money"), para(words))


def _windows(d: Mapping[str, Any]) -> str:
    label, key = ("Log loss", "log_loss") if d["task"] == "classify" else ("R²", "r2")
    rows = [
        (f"{when(w['test_from_ns'], False)} to {when(w['test_to_ns'], False)}", *(count(w[k]) for k in ("train_rows", "rows", "rounds")),
         percent(w["accuracy"]), *(_number(w[k]) for k in ("ic", "auc", key)), count(w["trades"]),
         toned(percent(w["net"], sign=True), w["net"]))
        for w in d["windows"]
    ]
    figure = go.Figure()
    values = [100 * w["accuracy"] if math.isfinite(w["accuracy"]) else 50.0 for w in d["windows"]]
    middle = np.array([(w["test_from_ns"] + w["test_to_ns"]) // 2 for w in d["windows"]], np.int64)
    figure.add_bar(x=times(middle), y=[v - 50 for v in values], base=50, name="Accuracy",
                   marker_color=[GOOD if v > 50 else BAD for v in values], hovertemplate="%{customdata:.2f} %", customdata=values)
    figure.add_hline(y=50, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_yaxes(ticksuffix=" %")
    heads = ("Test window", "Trained on", "Tested", "Trees", "Accuracy", "IC", "AUC", label, "Trades", "Net")
    return section("windows", "Windows", styled(figure, 240, "figure-walk-windows"), table(heads, rows),
                   para("Trees: how many the end of the training rows asked for. Net: return on the capital after costs."))


def _symbols(d: Mapping[str, Any]) -> str:
    rows = [(name, count(m["rows"]), percent(m["accuracy"]), _number(m["ic"]), _number(m["auc"]), percent(m["base_rate"]))
            for name, m in d["symbols"].items()]
    return section("symbols", "Symbols", table(("Symbol", "Rows", "Accuracy", "IC", "AUC", "Up"), rows))


def _calibration(d: Mapping[str, Any]) -> str:
    if not d["reliability"]:
        return ""
    said, came = [b["said"] for b in d["reliability"]], [b["came_true"] for b in d["reliability"]]
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "width": 1, "dash": "dot"}, name="As it should be",
                       hoverinfo="skip")
    figure.add_scatter(x=said, y=came, mode="lines+markers", line={"color": LINE}, name="As it was",
                       customdata=[b["rows"] for b in d["reliability"]], hovertemplate="%{y:.3f} of %{customdata:,} rows")
    figure.update_xaxes(range=[0, 1], title="probability of up that was said")
    figure.update_yaxes(range=[0, 1], title="share that was up")
    words = f"Expected calibration error {_number(d['overall']['calibration_error'])}; bins of a tenth."
    return section("calibration", "Calibration", styled(figure, 340, "figure-walk-calibration", "linear"), para(words))
