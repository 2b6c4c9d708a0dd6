"""Parity against real edits of the source: one line of a feature's kernel, one line of a limit, each found at its stage and first event.

`python -m tests.parity_edits` runs a small market as this code has it, copies the code, edits a line of the copy and
replays the run there; it prints one JSON object, exit code 1 where an edit was not found where it shows first. Every
edit compiles all kernels anew, so it takes some minutes and is not among the tests.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STRATEGY = "ema_cross"
MARKET = "3:2:7"


@dataclass(frozen=True)
class Edit:
    """A line, what it becomes, and what `penstock parity` should say: the stage and the event."""

    file: str
    line: str
    instead: str
    stage: str
    first: str
    """SQL for the tape position of the event."""


EDITS = (
    Edit("operators/market/features/averages.py", "        e1 += alpha * (x - e1)\n", "        e1 += 1.001 * alpha * (x - e1)\n", "features",
         # an average moves first on the bar after its first n, of the shortest average of the set
         "SELECT min(seq) FROM (SELECT seq, row_number() OVER (PARTITION BY symbol ORDER BY seq) AS bar FROM features FINAL "
         "WHERE run_id = 'r') WHERE bar = {shortest} + 1"),
    Edit("operators/desk/limits.py", "        observed[14] = notional\n", "        observed[14] = notional + 1\n", "gate",
         "SELECT min(seq) FROM decisions FINAL WHERE run_id = 'r' AND action != 'exit'"),
)


def penstock(code: Path, home: Path, *words: str, fails: bool = False) -> Any:
    """What a command of the code in that folder prints as JSON."""
    env = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "cli.main", *words, "--json"], cwd=home, env=env, capture_output=True, text=True, check=False)
    if done.returncode != int(fails):
        raise SystemExit(f"penstock {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}{done.stdout[-500:]}")
    return json.loads(done.stdout)


def value(home: Path, sql: str) -> Any:
    """The one value of a query."""
    return next(iter(penstock(ROOT, home, "warehouse", "query", sql)["rows"][0].values()))


def copied(folder: Path) -> Path:
    """The packages of this project, with a cache of kernels of their own."""
    rooms = {name.split(".")[0] for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]}
    for room in rooms:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def located(code: Path, home: Path, edit: Edit, shortest: int) -> dict[str, Any]:
    """What parity says with one line edited; the line is put back."""
    path = code / edit.file
    text = path.read_text()
    if text.count(edit.line) != 1:
        raise SystemExit(f"{edit.file} has the line {edit.line.strip()!r} {text.count(edit.line)} times; this script edits it where it is there once")
    path.write_text(text.replace(edit.line, edit.instead))
    try:
        said = penstock(code, home, "parity", "r", fails=True)["difference"]
    finally:
        path.write_text(text)
    expected = int(value(home, edit.first.format(shortest=shortest)))
    return {"file": edit.file, "line": edit.line.strip(), "instead": edit.instead.strip(), "stage": said["stage"], "seq": said["seq"],
            "columns": list(said["columns"]), "found": (said["stage"], said["seq"]) == (edit.stage, expected)}


def main() -> int:
    """Run, copy, edit, replay; 0 where every edit was found."""
    with tempfile.TemporaryDirectory(prefix="penstock-edits-") as folder:
        home = Path(folder, "home")
        home.mkdir()
        penstock(ROOT, home, "run", "paper", "--run", "r", "--simulate", MARKET, "--pace", "max", "--enable", "--strategy", STRATEGY)
        untouched = penstock(ROOT, home, "parity", "r")
        names = str(value(home, "SELECT any(feature_set) FROM features WHERE run_id = 'r'"))
        shortest = min(int(name) for name in "".join(c if c.isdigit() else " " for c in names).split())
        code = copied(Path(folder, "code"))
        found = [located(code, home, edit, shortest) for edit in EDITS]
    ok = untouched["ok"] and all(f["found"] for f in found)
    print(json.dumps({"ok": ok, "compared": sum(untouched["compared"].values()), "edits": found}, indent=2))
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
