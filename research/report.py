"""The report of a run: one HTML file that needs nothing else, for a screen, a phone or paper.

The same data gives the same bytes, and a file is either whole or not there. Statistics are plain NumPy: the tearsheet
library at hand (quantstats) draws with matplotlib and looks for data on the network.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from research.model_numbers import Learning
from research.report_page import SCRIPT, STYLE, cell, para
from research.report_sections import SECTIONS, Digest, header, tiles, warnings
from schemas.errors import UserError
from schemas.intervals import interval_text
from schemas.tables import TableSpec


class Finished(Protocol):
    """A run in memory or in the warehouse: tables as the codec makes them, a summary, a source and a plan."""

    @property
    def summary(self) -> dict[str, Any]: ...
    source: dict[str, Any]

    @property
    def plan(self) -> Any: ...
    def table(self, spec: TableSpec) -> pa.Table: ...
    @property
    def bars(self) -> Any: ...
    @property
    def decisions(self) -> Any: ...
    @property
    def fills(self) -> Any: ...
    @property
    def positions(self) -> Any: ...
    @property
    def equity(self) -> Any: ...
    @property
    def rejected(self) -> Any: ...
    @property
    def late(self) -> Any: ...


@dataclass(frozen=True)
class ReportData:
    """What a report is made of; the tables are as `schemas.codec` makes them.

    bars needs symbol, seq, bar_kind, interval_ns, ts_open_ns, ts_close_ns, close and gap, no more. summary is the object of `--json`;
    config and data are plain values (`data`: data_hash, paths); policy and strategies are YAML; digests are named hashes. learning: None
    where the run has no models.
    """

    bars: pa.Table
    decisions: pa.Table
    fills: pa.Table
    positions: pa.Table
    equity: pa.Table
    rejected: pa.Table
    late: pa.Table
    summary: Mapping[str, Any]
    strategy_names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    policy: str = ""
    strategies: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    learning: Learning | None = None

    @classmethod
    def from_run(cls, run: Finished) -> "ReportData":
        """The data of a run."""
        from operators.strategies.documents import to_yaml
        made = run.plan
        digests = {"policy": made.config.policy.digest, "data": str(run.source.get("data_hash", ""))}
        digests.update({f"strategy {spec.name}": spec.content_hash() for spec in made.specs})
        return cls(
            bars=run.bars, decisions=run.decisions, fills=run.fills, positions=run.positions, equity=run.equity, rejected=run.rejected,
            late=run.late, summary=run.summary, strategy_names=made.strategy_names, config=plain_config(made),
            policy=made.config.policy.to_yaml(), strategies="\n".join(to_yaml(spec) for spec in made.specs),
            data=run.source, digests=digests, learning=Learning.of(run),
        )


def plain_config(made: Any) -> dict[str, Any]:
    """The configuration of a plan as plain values, intervals as text; the policy is told apart."""
    values = {k: v for k, v in asdict(made.config).items() if k not in ("policy", "strategies", "features", "intervals_ns", "allocation")}
    return {
        "intervals": [interval_text(ns) for ns in made.intervals_ns],
        "features": {interval_text(ns): list(names) for ns, names in made.features.items()},
        "strategies": list(made.strategy_names), "allocation": [round(float(w), 6) for w in made.weights], **values,
    }


def report_html(data: ReportData) -> str:
    """The page as text. Raises KeyError where a table lacks a column."""
    from plotly.offline import get_plotlyjs
    found = Digest(data)
    title = f"Penstock run {data.summary.get('run_id', '')}"
    body = "".join(make(found) for make in SECTIONS)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{cell(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"{header(found, title)}<main>{warnings(found)}{tiles(found)}{body}</main>"
        f"<footer>{para('All times are UTC; money is in quote units. A trade is a round trip of one strategy in one symbol, after fees.')}"
        f"</footer><noscript>{cell('The figures need JavaScript; the tables do not.')}</noscript><script>{SCRIPT}</script></body></html>\n"
    )


def write_report(run: Finished, path: Path) -> Path:
    """Write the report of a run to `path`; returns it. UserError where it cannot be written, and then nothing is left behind."""
    return write_html(report_html(ReportData.from_run(run)), path)


def write_html(text: str, path: Path) -> Path:
    """Write a page beside its place, then move it there in one step."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the report: {error.strerror}; give a file in a folder that can be written") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path


__all__ = ["ReportData", "plain_config", "report_html", "write_html", "write_report"]
