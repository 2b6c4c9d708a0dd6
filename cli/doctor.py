"""`penstock doctor`: what is here, what is missing, and how to get it. Exit code 1 where something needed is missing."""

import importlib.metadata
import shutil
import sys
import time
from pathlib import Path

import typer

from cli.output import out, print_json, print_table
from cli.warehousing import DIRECTORY, warehouse_at
from schemas.errors import PenstockError

NEEDED = ("bytewax", "chdb", "clickhouse-connect", "numba", "numpy", "pyarrow", "plotly")
DISK_FREE_MIN_GB = 2.0


def doctor_command(url: str | None, as_json: bool) -> None:
    """Check and print."""
    checks: list[tuple[str, str, bool, str]] = []
    version = ".".join(map(str, sys.version_info[:3]))
    checks.append(("python", version, (3, 11) <= sys.version_info[:2] <= (3, 12), "install Python 3.11 or 3.12"))
    for name in NEEDED:
        try:
            checks.append((name, importlib.metadata.version(name), True, ""))
        except importlib.metadata.PackageNotFoundError:
            checks.append((name, "missing", False, "run make setup"))
    now = time.time()
    checks.append(("clock", time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now)), now > 1_700_000_000, "set the machine's clock"))
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    checks.append(("disk", f"{free:.1f} GB free", free > DISK_FREE_MIN_GB, f"free at least {DISK_FREE_MIN_GB:g} GB"))
    from schemas.kernel_cache import source_hash
    compiled = any((Path(__file__).resolve().parent.parent / ".kernels" / source_hash()).rglob("*.nbi"))
    checks.append(("kernels", "compiled" if compiled else "not yet; the first replay compiles them", True, ""))
    try:
        with warehouse_at(url) as where:
            from sinks.clickhouse import connect
            client = connect(where)
            checks.append(("warehouse", f"ClickHouse {client.server_version} at {url or DIRECTORY}", True, ""))
            client.close()
    except PenstockError as error:
        checks.append(("warehouse", str(error), False, "see the message"))
    good = all(ok for _, _, ok, _ in checks)
    if as_json:
        print_json({"ok": good, "checks": [{"name": n, "found": f, "ok": ok, "mend": "" if ok else mend} for n, f, ok, mend in checks]})
    else:
        print_table(("", "found", "", ""), [(n, f, "ok" if ok else "MISSING", "" if ok else mend) for n, f, ok, mend in checks])
        out.print("all is well" if good else "something is missing", highlight=False)
    if not good:
        raise typer.Exit(1)
