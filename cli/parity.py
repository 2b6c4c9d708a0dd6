"""`penstock parity RUN`: whether what a run recorded is what a replay of its input gives."""

from pathlib import Path
from typing import Any

import numpy as np

from cli.output import err, out, print_json, print_table
from cli.replaying import parse_time
from cli.secrets import expanded
from schemas.errors import UserError


def parity_command(run: str, config: str | None, url: str | None, ts_from: str | None, ts_to: str | None, as_json: bool) -> int:
    """Compare; 0 where nothing differs, 1 where something does."""
    from research.replaying import load_config
    loaded = expanded(load_config(config))
    low, high = parse_time(ts_from, "--from"), parse_time(ts_to, "--to")
    if loaded.kafka is not None:
        from research.parity_runs import kafka_parity
        result = kafka_parity(loaded.kafka, run, low, high)
    else:
        from cli.warehousing import warehouse_at
        from research.parity_runs import local_parity
        folder = Path(loaded.live.state_dir) / run
        if not (folder / "input.sqlite3").exists():
            raise UserError(f"no run {run} in {loaded.live.state_dir}; name the configuration that it ran with by --config")
        with warehouse_at(url or loaded.warehouse or None) as where:
            result = local_parity(folder, where, run, low, high)
    if as_json:
        print_json(result)
    else:
        show(result)
    return 0 if result["ok"] else 1


def show(result: dict[str, Any]) -> None:
    """For people."""
    rows = [(name, f"{n:,}") for name, n in result["compared"].items()]
    print_table(("stage's table", "rows compared"), rows)
    if result["unpublished_frames"]:
        err.print(f"{result['unpublished_frames']:,} frames at the end are in the journal and not published yet: "
                  "the run has not stopped cleanly", highlight=False)
    if result["ok"]:
        out.print(f"OK: {result['frames']:,} frames, {result['rows_in']:,} rows in, {sum(result['compared'].values()):,} rows made: "
                  "nothing differs", highlight=False)
        return
    d = result["difference"]
    when = str(np.datetime64(d["ts_event_ns"], "ns"))
    where = f"{d['symbol'] or 'all symbols'} at {when}, tape position {d['seq']:,}"
    out.print(f"DIFFERS first in stage {d['stage']}, table {d['table']}: {where}", highlight=False)
    both = [k for k in {**(d["recorded"] or {}), **(d["replayed"] or {})} if k in d["columns"] or not d["columns"]]
    print_table(("column", "recorded", "replayed"),
                [(k, str((d["recorded"] or {}).get(k, "no row")), str((d["replayed"] or {}).get(k, "no row"))) for k in both])
    fed = d["fed_by"]
    if fed["journal"]:
        out.print(f"frame {fed['journal']['frame']} of the journal, messages {', '.join(fed['journal']['messages'])}", highlight=False)
    for name, found in fed["rows"].items():
        for row in found:
            out.print(f"  {name}: " + ", ".join(f"{k}={v}" for k, v in row.items() if not isinstance(v, list))[:400], highlight=False)
