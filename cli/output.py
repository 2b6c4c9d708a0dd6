"""What commands print: JSON for machines; tables and progress for people, progress on standard error."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

out = Console()
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output; NaN and infinities become null."""
    sys.stdout.write(json.dumps(_plain(value), allow_nan=False, default=str) + "\n")
    sys.stdout.flush()  # somebody reads it through a pipe while the process goes on


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """A table for people; numbers to the right."""
    table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False)
    for k, name in enumerate(columns):
        numeric = all(isinstance(row[k], (int, float)) for row in rows) and bool(rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else f"{v:,.6g}" if isinstance(v, float) else str(v)
                        for v in row))
    out.print(table)


@contextmanager
def progress(label: str, total: float | None, quiet: bool) -> Iterator[Any]:
    """A progress bar on standard error; yields `update(done, label=None)`."""
    if quiet or not err.is_terminal:
        if not quiet:
            err.print(f"{label} …", highlight=False)
        yield lambda done, text=None: None
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                  TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=err, transient=False) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda done, text=None: bar.update(task, completed=done, note=text or "")
        if total is not None:
            bar.update(task, completed=total)
