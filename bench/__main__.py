"""`python -m bench NAME [--json]`: run one benchmark, or list them when none is given."""

import argparse
import importlib
import pkgutil
import sys

import bench
from bench._harness import Absent, Result


def names() -> list[str]:
    """The benchmarks: every module of this folder that does not begin with an underscore."""
    return sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_") and not m.ispkg)


def main() -> int:
    """Run what the command line asks for; 2 where it asks for what there is not."""
    known = names()
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Penstock and its peers in one run.")
    parser.add_argument("name", nargs="?", help="the benchmark; without it, they are listed")
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--rows", type=int, help="rows of input, where the benchmark takes a number")
    parser.add_argument("--runs", type=int, default=3, help="runs after the warm-up; the median counts")
    parser.add_argument("--names", action="store_true", help="print the names alone")
    given = parser.parse_args()
    if given.names:
        print("\n".join(known))
        return 0
    if given.name is None:
        for name in known:
            print(f"  {name:10} {(importlib.import_module(f'bench.{name}').__doc__ or '').splitlines()[0]}")
        return 0
    if given.name not in known:
        print(f'unknown benchmark "{given.name}"; known: {", ".join(known)}', file=sys.stderr)
        return 2
    if given.runs < 1 or (given.rows is not None and given.rows < 10_000):
        print("give --runs of at least 1 and --rows of at least 10000", file=sys.stderr)
        return 2
    module = importlib.import_module(f"bench.{given.name}")
    result: Result | Absent = module.measure(given.runs, given.rows or module.ROWS)
    print(result.as_json() if given.json else result.as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
