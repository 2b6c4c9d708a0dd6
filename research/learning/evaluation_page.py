"""The page of an evaluation: one HTML file that needs nothing else, made of the document that `--json` prints.

The same document gives the same bytes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from research.report import write_html
from research.report_figures import LINE, MUTED, styled, times
from research.report_page import DASH, SCRIPT, STYLE, cell, count, para, percent, section, table, tile, when
from schemas.intervals import interval_text

_TABLE = (("rows", "Rows"), ("accuracy", "Right"), ("ic", "IC"), ("auc", "AUC"), ("log_loss", "Log loss"), ("brier", "Brier"),
          ("calibration_error", "Calibration error"), ("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R²"))


def evaluation_html(document: Mapping[str, Any]) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs
    title = f"{document['name']} version {document['version']}: evaluation"
    sample = "with the rows that it was trained on" if document["in_sample"] else "only rows that it was not trained on"
    facts = [("Data (UTC)", f"{when(document['ts_from_ns'], False)} to {when(document['ts_to_ns'], False)}"), ("Rows", sample),
             ("Digest", document["digest"][:16])]
    head = "".join(f"<div><b>{cell(k)}</b><span>{cell(v)}</span></div>" for k, v in facts)
    body = _tiles(document) + _course(document) + _groups(document) + _calibration(document)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{cell(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f'<header class="top"><h1>{cell(title)}</h1><div class="facts">{head}</div></header><main>{body}</main>'
        f"<footer>{para('All times are UTC. Errors are of the probability against 0 or 1, or of the score against the label.')}</footer>"
        f"<noscript>{cell('The figures need JavaScript; the tables do not.')}</noscript><script>{SCRIPT}</script></body></html>\n"
    )


def write_evaluation(document: Mapping[str, Any], path: Path) -> Path:
    """Write the page; UserError where it cannot be written."""
    return write_html(evaluation_html(document), path)


def _number(value: float | None, digits: int = 4) -> str:
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _cells(m: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(count(int(m[k])) if k == "rows" else percent(m[k]) if k == "accuracy" else _number(m[k]) for k, _ in _TABLE)


def _between(document: Mapping[str, Any], key: str, form: Any) -> str:
    i = document["intervals"][key]
    return f"{i['level']:.0%} interval {form(i['low'])} to {form(i['high'])}"


def _tiles(d: Mapping[str, Any]) -> str:
    o = d["overall"]
    made = [
        tile("Right directions", percent(o["accuracy"]), _between(d, "accuracy", percent)),
        tile("Information coefficient", _number(o["ic"]), _between(d, "ic", _number)),
        tile("AUC", _number(o["auc"]), "0.5 is chance"),
        tile("Log loss", _number(o["log_loss"]), f"chance {math.log(2):.4f}") if d["task"] == "classify" else tile(
            "R²", _number(o["r2"]), "against the mean of what came true"),
        tile("Rows", count(int(o["rows"])), f"{percent(o['base_rate'])} of labels were up"),
    ]
    return f'<div class="tiles">{"".join(made)}</div>'


def _course(d: Mapping[str, Any]) -> str:
    points = d["over_time"]
    ends = np.array([p["ts_ns"] for p in points], np.int64)
    figure = go.Figure()
    values = [100 * p["accuracy"] if math.isfinite(p["accuracy"]) else None for p in points]
    figure.add_scatter(x=times(ends), y=values, mode="lines+markers", line={"color": LINE}, name="Right directions",
                       customdata=[p["rows"] for p in points], hovertemplate="%{y:.2f} % of %{customdata:,} rows")
    figure.add_hline(y=50, line={"color": MUTED, "width": 1, "dash": "dot"})
    figure.update_yaxes(ticksuffix=" %")
    words = f"Each point is of the labels that became known in the {interval_text(d['window_ns'])} before it."
    return section("course", "Over time", styled(figure, 280, "figure-evaluation-course"), para(words))


def _groups(d: Mapping[str, Any]) -> str:
    out = ""
    for key, head in (("symbols", "Symbol"), ("regimes", "Regime")):
        rows = [(name, *_cells(m)) for name, m in d[key].items()]
        out += section(key, f"{head}s", table((head, *(label for _, label in _TABLE)), rows))
    return out


def _calibration(d: Mapping[str, Any]) -> str:
    if not d["reliability"]:
        return ""
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "width": 1, "dash": "dot"}, name="As it should be",
                       hoverinfo="skip")
    figure.add_scatter(x=[b["said"] for b in d["reliability"]], y=[b["came_true"] for b in d["reliability"]], mode="lines+markers",
                       line={"color": LINE}, name="As it was", customdata=[b["rows"] for b in d["reliability"]],
                       hovertemplate="%{y:.3f} of %{customdata:,} rows")
    figure.update_xaxes(range=[0, 1], title="probability of up that was said")
    figure.update_yaxes(range=[0, 1], title="share that was up")
    rows = [(f"{percent(b['low'])} to {percent(b['high'])}", count(b["rows"]), percent(b["said"]), percent(b["came_true"]))
            for b in d["reliability"]]
    return section("calibration", "Calibration", styled(figure, 340, "figure-evaluation-calibration", "linear"),
                   table(("Probability", "Rows", "Said", "Came true"), rows))
