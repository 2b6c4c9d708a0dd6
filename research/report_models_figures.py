"""The figures about the models of a run: right directions and loss over time, calibration, drift, weights and versions.

Like the others they are thinned before plotly sees them, escape what comes from outside, and have counted ids.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
from plotly.subplots import make_subplots

from research.learning.evaluation import reliability
from research.model_numbers import POINTS, ROWS_MIN, Record, course
from research.report_figures import BAD, GOOD, LINE, MUTED, WARN, rounded, styled, times
from research.report_numbers import Floats, Ints, ints, texts

COLORS = (LINE, WARN, GOOD, "#7b4fa3", BAD, "#0e8a8f", "#8a5a2b", "#5d6b7a")
DRIFT_SHOWN = 2400


def _color(k: int) -> str:
    return COLORS[k % len(COLORS)]


def course_figure(records: Sequence[Record], begin_ns: int, end_ns: int) -> str:
    """Above the share of right directions, below the log loss, each over a rolling window; a line per model."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.55, 0.45])
    for k, r in enumerate(records):
        right = np.where(r.hit >= 0, 100.0 * r.hit, np.nan)
        loss = r.loss if r.outcomes.task == "classify" else np.full(len(r.loss), np.nan)
        for row, values, unit in ((1, right, " %"), (2, loss, "")):
            ends, means = course(r.outcomes.ts_end_ns, values, begin_ns, end_ns)
            if np.isfinite(means).any():
                shown = [v if math.isfinite(v) else None for v in rounded(means).tolist()]
                figure.add_scatter(x=times(ends), y=shown, mode="lines", line={"color": _color(k), "width": 1.6}, name=escape(r.label),
                                   legendgroup=r.label, showlegend=row == 1, row=row, col=1, hovertemplate=f"%{{y:.4~g}}{unit}")
    for row, chance in ((1, 50.0), (2, math.log(2))):
        figure.add_hline(y=chance, line={"color": MUTED, "width": 1, "dash": "dot"}, row=row, col=1)
    figure.update_yaxes(ticksuffix=" %", title="right", row=1, col=1)
    figure.update_yaxes(title="log loss", row=2, col=1)
    return styled(figure, 420, "figure-models-course")


def calibration_figure(records: Sequence[Record]) -> str:
    """How often it was up where about this much was said."""
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "width": 1, "dash": "dot"}, name="as it should be", hoverinfo="skip")
    for k, r in enumerate(records):
        if r.outcomes.task == "classify" and len(r.outcomes):
            bins = [b for b in reliability(r.outcomes.p_up, r.outcomes.up) if b.rows >= ROWS_MIN]
            most = max((b.rows for b in bins), default=1)
            figure.add_scatter(x=[round(b.said, 6) for b in bins], y=[round(b.came_true, 6) for b in bins], mode="lines+markers", name=escape(r.label),
                               line={"color": _color(k), "width": 1.2}, customdata=[b.rows for b in bins],
                               marker={"size": [round(5 + 11 * math.sqrt(b.rows / most), 2) for b in bins]},
                               hovertemplate="%{y:.3f} of %{customdata:,} labels")
    figure.update_yaxes(range=[-0.03, 1.03], title="share that was up")
    return styled(figure, 400, "figure-models-calibration", "linear", "closest")


def drift_figure(drift: pa.Table, whats: Sequence[str]) -> str:
    """A mark per alarm: when, and of what; the latest ones where there are very many."""
    kept = np.argsort(ints(drift, "ts_event_ns"), kind="stable")[-DRIFT_SHOWN:]
    ts, detector = times(ints(drift, "ts_event_ns")[kept]), texts(drift, "detector")[kept]
    what, symbol, action = np.array(whats, object)[kept], texts(drift, "symbol")[kept], texts(drift, "action")[kept]
    names = sorted(set(what.tolist()), reverse=True)
    figure = go.Figure()
    for k, name in enumerate(sorted(set(detector.tolist()))):
        mine = np.flatnonzero(detector == name)
        notes = [f"{escape(str(symbol[j]) or 'all symbols')}: {escape(str(name))}, {escape(str(action[j]))}" for j in mine]
        figure.add_scatter(x=ts[mine], y=[escape(str(what[j])) for j in mine], mode="markers", name=escape(str(name).replace("_", " ")), text=notes,
                           hovertemplate="%{x} %{text}", marker={"size": 9, "symbol": "line-ns", "line": {"width": 2, "color": _color(k)}})
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=[escape(n) for n in names])
    return styled(figure.update_layout(showlegend=True), 110 + 26 * len(names), "figure-models-drift", hover="closest")


def weights_figure(number: int, members: Sequence[str], ts_ns: Ints, weights: Floats) -> str:
    """The weight of each member, as the mean over symbols and short stretches of time. weights: (rows, members)."""
    order = np.argsort(ts_ns, kind="stable")
    cuts = np.unique(np.linspace(0, len(ts_ns), min(2 * POINTS, len(ts_ns)) + 1).astype(np.int64))
    size = np.diff(cuts)
    figure = go.Figure()
    for k, name in enumerate(members):
        mean = np.add.reduceat(weights[order, k], cuts[:-1]) / size
        figure.add_scatter(x=times(ts_ns[order][cuts[1:] - 1]), y=rounded(mean), mode="lines", name=escape(name), line={"color": _color(k), "width": 1.6},
                           hovertemplate="%{y:.3f}")
    figure.update_yaxes(title="weight", rangemode="tozero")
    return styled(figure, 280, f"figure-models-weights-{number}")


def versions_figure(spans: Sequence[tuple[str, int, int, int]]) -> str:
    """A bar per version and the time in which it was live. spans: (whose, version, from ns, to ns)."""
    names = list(dict.fromkeys(name for name, *_ in spans))
    figure = go.Figure()
    for name, version, begin, end in spans:
        x = times(np.array([begin, (begin + end) // 2, end], np.int64)).tolist()
        figure.add_scatter(x=x, y=[escape(name)] * 3, mode="lines+text", line={"color": _color(version - 1), "width": 22}, showlegend=False,
                           text=["", f"version {version}", ""], textfont={"color": "white"}, textposition="middle center", hoverinfo="skip")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=[escape(n) for n in reversed(names)])
    return styled(figure, 90 + 40 * len(names), "figure-models-versions")


def column(table: pa.Table, name: str, mine: Ints, width: int) -> Floats:
    """A column of lists of floats as (rows, width)."""
    rows = table[name].take(pa.array(mine)).to_pylist()
    return np.array([r[:width] for r in rows], np.float64).reshape(len(mine), width)

