"""The report of a learning cycle, for a trader: what began it, on which data, what the new version is worth, which gates it met, what was
decided. Markdown for people and JSON for machines, from the cycle's state alone, so it can be made again at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from research.learning.cycle import Cycle, write_whole
from research.learning.governance import canonical_json
from research.report_page import when

MARKDOWN, JSON = "report.md", "report.json"
_FIGURES = (
    ("accuracy", "right directions", "{:.2%}"), ("ic", "information coefficient", "{:.4f}"), ("auc", "AUC", "{:.4f}"),
    ("log_loss", "log loss", "{:.5f}"), ("brier", "Brier score", "{:.5f}"), ("calibration_error", "calibration error", "{:.4f}"),
    ("rmse", "RMSE", "{:.6g}"), ("mae", "MAE", "{:.6g}"), ("r2", "R²", "{:.5f}"), ("rows", "rows", "{:,.0f}"),
)
_DECISIONS = {
    "promoted": "**Promoted.** Version {version} is the active one; version {active} is kept and can be rolled back to.",
    "refused": "**Not promoted.** What was in use stays in use.",
    "aborted": "**Aborted.** What was in use stays in use.",
}


def number(value: Any, form: str = "{:.4g}") -> str:
    """A figure, or a dash."""
    return "–" if value is None else form.format(value)


def cycle_markdown(c: Cycle) -> str:
    """The report as text."""
    parts = [f"# {c.name}: learning cycle {c.number}", _decision(c), "## Why", *(f"- {t['kind']}: {t['why']}" for t in c.triggers)]
    if c.data:
        d = c.data
        start, train_to, evaluate_to, end = (when(d[key]) for key in ("from_ns", "evaluate_ns", "shadow_ns", "to_ns"))
        parts += ["## Data", f"{d['rows']:,} rows of {', '.join(d['symbols'])}, {start} to {end} (UTC): trained up to {train_to}, "
                  f"evaluated up to {evaluate_to}, the rest for shadow. Hash {d['content_hash'][:16]}."]
    f = c.figures
    if f:
        parts += ["## Out of sample", *_metrics(f), *_comparisons(f), *_groups("regime", f["candidate"]["regimes"]),
                  *_groups("symbol", f["candidate"]["symbols"]), *_calibration(f["candidate"]["reliability"])]
    if f.get("shadow"):
        s = f["shadow"]
        parts += ["## Shadow", f"{s['rows']:,.0f} scores, {number(s['accuracy'], '{:.2%}')} right directions; distance of its losses from "
                  f"those in evaluation {number(s['distance'], '{:.3f}')}."]
    if c.verdicts:
        parts += ["## Gates", *_table(("gate", "what it asks", "observed", "threshold", "verdict"), [
            (v["gate"], v["meaning"], number(v["observed"]), f"{v['sense']} {v['bound']:g}", v["outcome"]) for v in c.verdicts])]
    if c.certificate:
        parts += ["## Certificate", f"Number {c.certificate['number']}: {c.certificate['verdict']}. Digest {c.certificate['digest'][:16]}.",
                  *_table(("check", "what it asks", "observed", "threshold", "verdict"), [
                      (k["name"], k["meaning"], number(k["observed"]), f"{k['sense']} {k['bound']:g}",
                       "passed" if k["passed"] else "failed") for k in c.certificate["checks"]]),
                  "If it fails:", *(f"{k}. {step}" for k, step in enumerate(c.certificate["fallback"], 1))]
    return "\n".join(_spaced(parts)) + "\n"


def _decision(c: Cycle) -> str:
    said = _DECISIONS.get(c.status, f"**Not decided yet:** {c.status}.").format(version=c.version, active=c.active)
    if c.status == "promoted" and not c.active:
        said = f"**Promoted.** Version {c.version} is the active one, the first."
    version = f" The candidate is version {c.version}." if c.version and c.status != "promoted" else ""
    advice = f" Recommendation: {c.recommendation}." if c.recommendation else ""
    return f"{said}{version} {c.reason[:1].upper() + c.reason[1:]}.{advice}".replace("..", ".")


def _metrics(f: Mapping[str, Any]) -> list[str]:
    mine, other = f["candidate"], f.get("active")
    heads = ("figure", "new version", "interval", *((other["name"],) if other else ()))
    rows = []
    for key, label, form in _FIGURES:
        if mine["metrics"][key] is None:
            continue
        i = mine["intervals"].get(key)
        between = f"{number(i['low'], form)} to {number(i['high'], form)}" if i else ""
        rows.append((label, number(mine["metrics"][key], form), between, *((number(other["metrics"][key], form),) if other else ())))
    return _table(heads, rows)


def _comparisons(f: Mapping[str, Any]) -> list[str]:
    out = []
    for key in ("against_base", "against_active"):
        a = f.get(key)
        if a:
            p = number(a["p_less"], "{:.4f}")
            out.append(f"- Loss against the {a['name']}: {number(a['mean'], '{:+.6f}')} a time; if it were no better, so much would be "
                       f"seen with probability {p} (Diebold-Mariano {number(a['statistic'], '{:.2f}')}, {a['n']:,} times; "
                       f"Kolmogorov-Smirnov {number(a['ks'], '{:.3f}')}, p {number(a['ks_p'], '{:.3f}')}).")
    u = f.get("active_unseen")
    if u and u["rows"] < u["of"]:
        out.append(f"- The training of {u['name']} had seen data up to {when(u['seen_to_ns'])}: it was compared on the {u['rows']:,} of "
                   f"{u['of']:,} bars after that." if f["active"] else
                   f"- The training of {u['name']} had seen data up to {when(u['seen_to_ns'])}, and {u['rows']:,} of {u['of']:,} bars are "
                   "later: too few to compare it with the new version.")
    e = f["edge"]
    out.append(f"- Right directions beyond those of always saying the side that was likelier in training: {number(e['value'], '{:+.2%}')} "
               f"(interval {number(e['low'], '{:+.2%}')} to {number(e['high'], '{:+.2%}')}).")
    u = f["uplift"]
    out.append(f"- Return per {u['period']} after costs above {u['over']}: {number(u['value'], '{:+.4%}')} (interval "
               f"{number(u['low'], '{:+.4%}')} to {number(u['high'], '{:+.4%}')}).")
    out += [f"- Selector on {name}: {why}." for name, why in f["selector"]["why"]]
    return out


def _groups(what: str, groups: Mapping[str, Any]) -> list[str]:
    rows = [(name, number(m["rows"], "{:,.0f}"), number(m["accuracy"], "{:.2%}"), number(m["ic"], "{:.4f}"), number(m["auc"], "{:.4f}"))
            for name, m in groups.items()]
    return _table((what, "rows", "right directions", "information coefficient", "AUC"), rows)


def _calibration(bins: list[Mapping[str, Any]]) -> list[str]:
    rows = [(f"{b['low']:.0%} to {b['high']:.0%}", f"{b['rows']:,}", f"{b['said']:.1%}", f"{b['came_true']:.1%}") for b in bins]
    return _table(("probability said", "rows", "said on average", "came true"), rows) if rows else []


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(str(x).replace("|", "\\|") for x in cells) + " |"

    return ["", line(heads), line(("---",) * len(heads)), *(line(r) for r in rows), ""]


def _spaced(parts: list[str]) -> list[str]:
    """An empty line round headings; never two."""
    out: list[str] = []
    for part in parts:
        if part.startswith("#") and out and out[-1]:
            out.append("")
        if part or (out and out[-1]):
            out.append(part)
        if part.startswith("#"):
            out.append("")
    return out


def write_cycle_report(c: Cycle, folder: Path) -> Path:
    """Both files beside the cycle's state; gives the readable one."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / JSON, canonical_json(asdict(c)) + "\n")
    write_whole(folder / MARKDOWN, cycle_markdown(c))
    return folder / MARKDOWN
