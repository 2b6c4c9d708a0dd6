"""The figures of the report: plotly, each thinned to a few thousand points and given as a `<div>` with its script.

Names from outside are escaped before plotly sees them, because it reads a subset of HTML in texts; ids are counted and not
drawn at random, so that the same run gives the same page.
"""

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from research.report_numbers import Floats, Ints, Trips, thinned

POINTS = 2400
MARKERS_MAX = 400
INK, MUTED, GRID, LINE, GOOD, BAD, WARN = "#1c2733", "#5d6b7a", "#e6eaef", "#1f5fa8", "#0a7d4f", "#c0362c", "#b26a00"
CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d", "toImage"]]}


def times(ts_ns: Ints) -> Floats:
    """ns to the milliseconds that a date axis takes, in UTC."""
    return np.asarray(ts_ns // 10**6, np.float64)


def rounded(values: Floats) -> Floats:
    """Eight significant digits: what the eye can use, and text that compresses."""
    size = np.where((values == 0) | ~np.isfinite(values), 1.0, np.abs(values))
    scale = 10.0 ** (7 - np.floor(np.log10(size)))
    return np.asarray(np.where(np.isfinite(values), np.round(values * scale) / scale, values))


def styled(figure: go.Figure, height: int, name: str, axis: str = "date", hover: str = "x unified") -> str:
    """The figure in the dress of the page. axis: kind of its x axis. hover: what the pointer tells."""
    figure.update_layout(
        height=height, margin={"l": 64, "r": 12, "t": 30, "b": 36}, paper_bgcolor="white", plot_bgcolor="white", hovermode=hover,
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 12, "color": INK},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "bgcolor": "rgba(255,255,255,0)"},
    )
    figure.update_xaxes(type=axis, gridcolor=GRID, linecolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor="#b8c2cc", automargin=True)
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=name, default_width="100%",
                              default_height=f"{height}px"))


def equity_figure(ts_ns: Ints, equity: Floats, drawdown: Floats, capital: float, ts_halt: int | None) -> str:
    """Equity above, drawdown in percent below, with the moment at which trading halted."""
    share = -100.0 * np.divide(drawdown, equity + drawdown, out=np.zeros(len(equity)), where=equity + drawdown > 0)
    kept = np.union1d(thinned(equity, POINTS), thinned(share, POINTS // 2))
    x = times(ts_ns[kept])
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.05)
    figure.add_scatter(x=x, y=rounded(equity[kept]), mode="lines", line={"color": LINE, "width": 1.6}, name="Equity", row=1, col=1,
                       hovertemplate="%{y:,.8~g}")
    figure.add_hline(y=capital, line={"color": MUTED, "width": 1, "dash": "dot"}, row=1, col=1)
    figure.add_scatter(x=x, y=rounded(share[kept]), mode="lines", line={"color": BAD, "width": 1.2}, fill="tozeroy",
                       fillcolor="rgba(192,54,44,.15)", name="Drawdown", row=2, col=1, hovertemplate="%{y:.4~g} %")
    if ts_halt is not None:
        figure.add_vline(x=ts_halt // 10**6, line={"color": WARN, "width": 1.5, "dash": "dash"})
        figure.add_annotation(x=ts_halt // 10**6, y=1, yref="paper", text="halted", showarrow=False, font={"color": WARN}, xanchor="left",
                              yanchor="top", bgcolor="rgba(255,255,255,.8)")
    figure.update_yaxes(tickformat="~s" if capital >= 10**7 else ",", row=1, col=1)
    figure.update_yaxes(ticksuffix=" %", row=2, col=1, rangemode="tozero")
    return styled(figure, 430, "figure-equity")


def price_figure(number: int, symbol: str, ts_ns: Ints, close: Floats, trips: Trips) -> str:
    """A symbol's closes with its last round trips: where they went in and out, and whether that won or lost."""
    mine = np.flatnonzero(trips.symbol == symbol)[-MARKERS_MAX:]
    view = traded(ts_ns, trips.ts_entry[mine], trips.ts_exit[mine])
    kept = thinned(close, POINTS)
    figure = go.Figure()
    if view is not None:
        near = np.arange(view.start, view.stop)[thinned(close[view], POINTS)]
        kept = np.union1d(kept, near)
        low, high = float(close[near].min()), float(close[near].max())
        room = (high - low) * 0.06 or high * 0.01
        figure.update_xaxes(range=times(ts_ns[[view.start, view.stop - 1]]).tolist())
        figure.update_yaxes(range=[low - room, high + room])
    figure.add_scatter(x=times(ts_ns[kept]), y=rounded(close[kept]), mode="lines", line={"color": "#8894a1", "width": 1.1},
                       name=escape(symbol), hovertemplate="%{y:.6~g}")
    won = trips.pnl[mine] > 0
    for hits, color, name in ((won, GOOD, "Winning trip"), (~won, BAD, "Losing trip")):
        at = mine[hits]
        if len(at):
            figure.add_scatter(
                x=_threes(times(trips.ts_entry[at]), times(trips.ts_exit[at])), y=_threes(rounded(trips.entry[at]), rounded(trips.exit[at])),
                mode="lines", line={"color": color, "width": 1.4}, name=name, hoverinfo="skip")
    for hits, shape, name in ((trips.long[mine], "triangle-up", "Long entry"), (~trips.long[mine], "triangle-down", "Short entry")):
        at = mine[hits]
        if len(at):
            figure.add_scatter(x=times(trips.ts_entry[at]), y=rounded(trips.entry[at]), mode="markers", name=name,
                               text=[escape(str(v)) for v in trips.strategy[at]], hovertemplate="%{y:.6~g} %{text}",
                               marker={"symbol": shape, "size": 9, "color": LINE, "line": {"color": "white", "width": 0.8}})
    if len(mine):
        notes = [f"{escape(str(trips.strategy[k]))}, {escape(str(trips.cause[k]))}, P&amp;L {trips.pnl[k]:+,.6g}" for k in mine]
        figure.add_scatter(x=times(trips.ts_exit[mine]), y=rounded(trips.exit[mine]), mode="markers", name="Exit", text=notes,
                           hovertemplate="%{y:.6~g} %{text}",
                           marker={"symbol": "circle", "size": 6, "color": [GOOD if w else BAD for w in won], "line": {"color": "white", "width": 0.8}})
    figure.update_yaxes(tickformat=",.6~g")
    return styled(figure, 400, f"figure-price-{number}")


def traded(ts_ns: Ints, entries: Ints, exits: Ints) -> slice | None:
    """The bars around the trips, where these fill less than half of the recording: there a figure opens."""
    if not len(entries) or len(ts_ns) < 50:
        return None
    first, last = int(entries.min()), int(exits.max())
    room = max((last - first) // 10, int(ts_ns[-1] - ts_ns[0]) // 100)
    start, stop = np.searchsorted(ts_ns, [first - room, last + room])
    return slice(int(start), int(stop)) if 2 <= stop - start < len(ts_ns) // 2 else None


def _threes(a: Floats, b: Floats) -> list[Any]:
    """a, b, nothing, a, b, nothing, …: separate segments in one trace."""
    return [v for pair in zip(a.tolist(), b.tolist(), strict=True) for v in (*pair, None)]
