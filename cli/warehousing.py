"""`penstock warehouse`: serve, query, export; and the warehouse that every other command talks to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.output import err, out, print_json, print_table
from schemas.errors import PenstockError, UserError

DIRECTORY = Path(".penstock") / "warehouse"


@contextmanager
def warehouse_at(url: str | None) -> Iterator[str]:
    """The URL of a warehouse: as given, from PENSTOCK_WAREHOUSE, or an embedded one that is started and stopped here."""
    where = url or os.environ.get("PENSTOCK_WAREHOUSE")
    if where == "none":
        raise UserError("--warehouse none keeps nothing; give a URL, or leave it out for the embedded warehouse")
    if where:
        yield where
        return
    from sinks.warehouse import start_embedded
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    running = start_embedded(DIRECTORY)
    try:
        yield running.url
    finally:
        running.stop()


def serve_command(directory: str, host: str, port: int) -> None:
    """Serve until interrupted."""
    from sinks.warehouse_server import serve
    err.print(f"warehouse of {directory} on http://{host}:{port}, Ctrl-C stops it", highlight=False)
    serve(Path(directory), host, port)


def query_command(sql: str, url: str | None, as_json: bool) -> None:
    """Run one query."""
    from research.stored import opened
    from sinks.clickhouse import query_arrow
    with warehouse_at(url) as where:
        client = opened(where)
        try:
            found = query_arrow(client, sql)
        except PenstockError as error:
            if "DB::Exception" in str(error):
                raise UserError(str(error)) from None
            raise
        client.close()
    rows = found.to_pylist()
    if as_json:
        print_json({"rows": rows})
    else:
        print_table(found.column_names, [list(row.values()) for row in rows])


def export_command(run_id: str, target: str, url: str | None, as_json: bool) -> None:
    """Every table of a run to Parquet."""
    import pyarrow.parquet as pq

    from research.recording import RECORDED_TABLES
    from research.stored import StoredRun
    folder = Path(target)
    with warehouse_at(url) as where:
        run = StoredRun(where, run_id)
        folder.mkdir(parents=True, exist_ok=True)
        written = {}
        for spec in RECORDED_TABLES:
            table = run.table(spec)
            partial = folder / f".{spec.name}.part"
            pq.write_table(table, partial)
            partial.replace(folder / f"{spec.name}.parquet")
            written[spec.name] = table.num_rows
    if as_json:
        print_json({"run_id": run_id, "out": target, "rows": written})
    else:
        out.print(f"{sum(written.values()):,} rows of {len(written)} tables → {target}", highlight=False)
