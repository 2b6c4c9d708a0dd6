"""`penstock simulate`: write a simulated market."""

from pathlib import Path

from cli.output import out, print_json, progress
from sources.simulator import simulate, write_tape


def simulate_command(target: str, symbols: int, hours: float, seed: int, quotes: bool, as_json: bool) -> None:
    """Simulate and write, with a progress bar."""
    tape = simulate(symbols, hours, seed, quotes=quotes)
    done = 0

    with progress(f"simulating {symbols} symbols, {hours:g} hours", 1.0, as_json) as update:
        def tell(share: float, rows: int) -> None:
            nonlocal done
            done = rows
            update(share, f"{rows:,} rows")
        files = write_tape(tape, target, tell)
    size = sum(Path(f).stat().st_size for f in files)
    if as_json:
        print_json({"files": list(files), "rows": done, "bytes": size, "seed": seed, "data_hash": tape.data_hash})
    else:
        out.print(f"{done:,} rows, {size / 1e6:.1f} MB → {', '.join(files)}", highlight=False)
