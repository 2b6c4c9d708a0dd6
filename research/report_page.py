"""The parts of the page: escaping, numbers as text, tables, tiles, the style sheet and the few lines of script.

Text becomes HTML in one place, `cell`, which escapes it; only `Html` passes as it is.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

DASH = "–"


class Html(str):
    """Text that is HTML already."""


def cell(value: object) -> str:
    """A value as HTML: escaped unless it is `Html`; None is a dash."""
    return str(value) if isinstance(value, Html) else escape(DASH if value is None else str(value))


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def signed(text: str) -> str:
    """A proper minus sign."""
    return text.replace("-", "−")


def money(value: float | None, sign: bool = False) -> str:
    """Quote units: two decimals with thousands separators, below 1 four significant digits."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value)
    decimals = 2 if size >= 1 or size < 1e-8 else min(8, 3 - math.floor(math.log10(size)))
    return signed(f"{value:{'+' if sign and size >= 1e-8 else ''},.{decimals}f}")


def price(value: float | None) -> str:
    """Six significant digits, at least two decimals."""
    if value is None or not math.isfinite(value):
        return DASH
    decimals = 2 if value == 0 else max(2, min(10, 5 - math.floor(math.log10(abs(value)))))
    return signed(f"{value:,.{decimals}f}")


def quantity(value: float) -> str:
    """Base units: up to eight decimals, six significant digits."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else DASH
    decimals = max(0, min(8, 5 - math.floor(math.log10(abs(value)))))
    text = f"{value:,.{decimals}f}"
    return signed(text.rstrip("0").rstrip(".") if "." in text else text)


def percent(value: float | None, sign: bool = False) -> str:
    """A fraction in percent, two decimals, or four significant digits where that would show nothing."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value) * 100
    decimals = 2 if size >= 0.1 or size < 1e-8 else min(8, 2 - math.floor(math.log10(size)))
    return signed(f"{value * 100:{'+' if sign and size >= 1e-8 else ''},.{decimals}f} %")


def ratio(value: float | None) -> str:
    return DASH if value is None or not math.isfinite(value) else signed(f"{value:,.2f}")


def count(value: int) -> str:
    return f"{value:,}"


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def when(ts_ns: int, seconds: bool = True) -> str:
    """Nanoseconds since 1970 as a date and time in UTC."""
    text = str(np.datetime64(int(ts_ns), "ns").astype("datetime64[s]" if seconds else "datetime64[m]"))
    return text.replace("T", " ")


def duration(ns: float) -> str:
    """`3 d 4 h`, `12 min`, `8 s`: the two largest units."""
    left, parts = int(ns // 10**9), list[str]()
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or f"{ns / 10**6:,.0f} ms"


def toned(text: str, value: float | None) -> Html:
    """A number coloured by its sign; the sign is in the text too."""
    tone = "" if value is None or not math.isfinite(value) or value == 0 else ("good" if value > 0 else "bad")
    return Html(f'<span class="{tone}">{escape(text)}</span>' if tone else escape(text))


def gain(value: float | None) -> Html:
    """Signed, coloured money."""
    return toned(money(value, sign=True), value)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], words: int = 1, foot: Sequence[object] | None = None, kind: str = "") -> str:
    """A table whose first `words` columns are text and the rest numbers, which align right; it scrolls by itself on a phone."""
    def line(values: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f'<{tag}{"" if k < words else " class=n"}>{cell(v)}</{tag}>' for k, v in enumerate(values)) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    end = f"<tfoot>{line(foot, 'td')}</tfoot>" if foot is not None else ""
    return (f'<div class="scroll"><table class="{kind}"><thead>{line(heads, "th")}</thead><tbody>{body}</tbody>{end}</table></div>')


def tile(label: str, value: object, note: object = "") -> str:
    """A headline number."""
    return f'<div class="tile"><div class="label">{cell(label)}</div><div class="value">{cell(value)}</div><div class="note">{cell(note)}</div></div>'


def bars(rows: Iterable[tuple[str, int, str]]) -> str:
    """Named counts with a bar each and a sentence that says what it means."""
    found = list(rows)
    most = max((n for _, n, _ in found), default=1) or 1
    return '<div class="bars">' + "".join(
        f'<div class="bar"><div class="name">{cell(name.replace("_", " "))}</div><div class="many">{count(n)}</div>'
        f'<div class="track"><span style="width:{max(100 * n / most, 0.5):.1f}%"></span></div><div class="why">{cell(why)}</div></div>'
        for name, n, why in found) + "</div>"


def section(name: str, title: str, *parts: str) -> str:
    """A titled part of the page."""
    return f'<section id="{name}"><h2>{cell(title)}</h2>{"".join(parts)}</section>'


def para(text: object, kind: str = "hint") -> str:
    return f'<p class="{kind}">{cell(text)}</p>'


def details(title: str, text: str) -> str:
    """A text that opens on a click, and is open in print."""
    return f"<details><summary>{cell(title)}</summary><pre>{cell(text)}</pre></details>"


STYLE = """
:root{color-scheme:light;--ink:#1c2733;--muted:#5d6b7a;--line:#dde3ea;--good:#0a7d4f;--bad:#c0362c;--accent:#1f5fa8}
*{box-sizing:border-box}
body{margin:0;background:#f4f6f8;color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header.top,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header.top{padding-top:24px}h1{font-size:1.6rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:0 0 12px}h3{font-size:1rem;margin:18px 0 8px}
.facts{display:flex;flex-wrap:wrap;gap:4px 28px;margin:10px 0 16px}.facts div{min-width:0}.facts b{display:block;font-size:.75rem;font-weight:600;color:var(--muted)}
.facts span{overflow-wrap:anywhere}
.warn{background:#fff4df;border-left:4px solid #b26a00;padding:10px 14px;margin:0 0 12px;border-radius:4px}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:0 0 16px}
.tile{background:#fff;border:1px solid var(--line);border-radius:8px;padding:12px 14px;min-width:0}
.label{font-size:.8rem;color:var(--muted)}.value{font-size:1.45rem;font-weight:650;line-height:1.25;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
.note{font-size:.78rem;color:var(--muted)}
section{background:#fff;border:1px solid var(--line);border-radius:8px;padding:18px 20px;margin:0 0 16px;min-width:0}
.hint{color:var(--muted);font-size:.88rem;margin:8px 0 0;max-width:110ch}
.scroll{overflow-x:auto;max-width:100%}table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:left;border-bottom:1px solid #edf0f4;white-space:nowrap;vertical-align:top}th{color:var(--muted);font-weight:600;border-bottom-color:var(--line)}
table th:first-child,table td:first-child{padding-left:0}table th:last-child,table td:last-child{padding-right:2px}
.n{text-align:right}tfoot td{font-weight:650;border-bottom:0}.narrow{width:auto}.wrap td{white-space:normal;overflow-wrap:anywhere}
.long{max-height:560px;overflow:auto}.long thead th{position:sticky;top:0;background:#fff;box-shadow:0 1px 0 var(--line)}
.long .scroll{overflow:visible}.long th,.long td{padding:4px 7px;font-size:.82rem}.plain thead{display:none}
.good{color:var(--good)}.bad{color:var(--bad)}
.two{display:grid;grid-template-columns:1fr 1fr;gap:28px}.two>*{min-width:0}
.tabs{display:flex;flex-wrap:wrap;gap:6px;margin:0 0 8px}.tabs button{font:inherit;font-size:.88rem;padding:6px 12px;border:1px solid var(--line);border-radius:6px;background:#fff;color:var(--ink);cursor:pointer}
.tabs button[aria-pressed=true]{background:var(--accent);border-color:var(--accent);color:#fff}.panel[hidden]{display:none}.panel h3{display:none}
.bar{display:grid;grid-template-columns:9.5rem 5.5rem minmax(60px,1fr) minmax(0,2.2fr);gap:2px 14px;align-items:center;padding:5px 0;border-bottom:1px solid #edf0f4;font-size:.88rem}
.many{text-align:right;font-variant-numeric:tabular-nums}.track span{display:block;height:12px;background:var(--accent);border-radius:2px}.why{color:var(--muted)}
pre{overflow:auto;max-height:480px;background:#f4f6f8;padding:12px;border-radius:6px;font-size:.8rem;white-space:pre-wrap;overflow-wrap:anywhere}
details{margin:8px 0}summary{cursor:pointer;font-size:.95rem}code{font-size:.85em;overflow-wrap:anywhere}footer{color:var(--muted);font-size:.82rem;padding-bottom:28px}
@media(max-width:900px){.tiles{grid-template-columns:repeat(2,1fr)}}
@media(max-width:700px){.modebar-container{display:none}main,header.top,footer{padding-left:12px;padding-right:12px}section{padding:14px 12px}.two{grid-template-columns:1fr;gap:8px}
.value{font-size:1.2rem}h1{font-size:1.3rem}.bar{grid-template-columns:1fr auto}.track,.why{grid-column:1/-1}}
@page{size:A4;margin:12mm}
@media print{body{background:#fff;font-size:9.5pt}main,header.top,footer{max-width:none;padding:0}section{border:0;border-top:1px solid #999;border-radius:0;padding:10px 0 0}
.tiles{grid-template-columns:repeat(4,1fr);gap:6px}.tile{break-inside:avoid;padding:6px 8px}.value{font-size:13pt}.tabs{display:none}.panel[hidden]{display:block}.panel h3{display:block}
.panel,.plotly-graph-div,tr,.bar,.warn{break-inside:avoid}h2,h3{break-after:avoid}thead{display:table-header-group}tfoot{display:table-row-group}
.scroll,.long{overflow:visible;max-height:none}.long thead th{position:static}table{font-size:7.5pt}th{white-space:normal}th,td{padding:2px 4px}.long th,.long td{padding:1px 3px;font-size:6.3pt}.long td:first-child{white-space:normal;overflow-wrap:anywhere}
.long .minor{display:none}.two{grid-template-columns:1fr 1fr}pre{max-height:none;font-size:7pt}.modebar{display:none}#trades,#provenance{break-before:page}}
"""

SCRIPT = """
const plots=()=>[...document.querySelectorAll('.plotly-graph-div')];
for(const b of document.querySelectorAll('.tabs button'))b.onclick=()=>{
  for(const o of document.querySelectorAll('.tabs button')){const on=o===b;o.setAttribute('aria-pressed',on);document.getElementById(o.dataset.panel).hidden=!on;}
  document.getElementById(b.dataset.panel).querySelectorAll('.plotly-graph-div').forEach(p=>Plotly.Plots.resize(p));};
const narrow=matchMedia('(max-width: 700px)').matches,touch=matchMedia('(pointer: coarse)').matches;
if(narrow||touch)plots().forEach(p=>Plotly.relayout(p,{...(touch?{dragmode:false}:{}),...(narrow?{'margin.l':44,'margin.r':4,'font.size':11}:{})}));
addEventListener('beforeprint',()=>{document.querySelectorAll('details').forEach(d=>d.open=true);plots().forEach(p=>Plotly.relayout(p,{width:690,autosize:false}));});
addEventListener('afterprint',()=>plots().forEach(p=>Plotly.relayout(p,{width:null,autosize:true})));
"""
