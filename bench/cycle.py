"""A whole learning cycle: 16 symbols, six weeks of minute bars, 60 features, LightGBM with 30 trials, two threads; seconds and memory."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench._harness import ROOT, Absent, Result

ROWS = 980_404
"""Of the recording; not a choice."""
TRIALS, THREADS = 30, 2
FEATURES = (
    "log_ret(1) log_ret(5) log_ret(15) log_ret(30) log_ret(60) body_ret gap_ret rsi(14) rsi(30) stochrsi(14,14,3,3).k stochrsi(14,14,3,3).d cmo(14) "
    "willr(14) stoch(14,3,3).k stoch(14,3,3).d cci(20) roc(14) adx(14).adx adx(14).plus_di adx(14).minus_di aroon(25).up aroon(25).down "
    "aroon(25).oscillator bollinger(20,2).percent_b bollinger(20,2).width range_ratio atr_ratio(20,100) natr(14) natr(60) ewma_vol(0.94) "
    "rogers_satchell(20) garman_klass(20) parkinson(20) yang_zhang(20) realized_vol(20) realized_vol(60) choppiness(14) volume_ratio(20) "
    "vwap_distance(20) vwap_distance(60) volume_z(20) volume_z(60) cmf(20) mfi(14) efficiency_ratio(10) efficiency_ratio(30) zscore(20) zscore(60) "
    "dist_low(20) dist_high(20) dist_low(60) dist_high(60) autocorr(50,1) kurtosis(50) skew(50) variance_ratio(100,5) hurst(100) percent_rank(20) "
    "day_sin day_cos"
)


def measure(runs: int, rows: int) -> Result | Absent:
    """`penstock model train` on the first two weeks makes the version that is in use; what is timed is `penstock learn --once --now`."""
    data = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data")) / "bars" / "spot_1m_2021-04_05"
    if not data.is_dir():
        return Absent("cycle", f"no recorded bars in {data}")
    assert len(FEATURES.split()) == 60
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "learn.yaml").write_text(json.dumps({
            "models": {"boosted": {"kind": "registered", "name": "trees"}},
            "learn": {"data": [str(data)], "trials": TRIALS, "governance": {"cost_bps": 10, "drawdown_max": 0.2}}}))
        train = _penstock(folder, "model", "train", "--data", str(data), "--to", "2021-04-16", "--name", "trees", "--horizon", "15m",
                          "--features", FEATURES, "--threads", str(THREADS))
        _penstock(folder, "model", "promote", "trees", "1")
        cycle = _penstock(folder, "learn", "--once", "--now", "measured", "--config", "learn.yaml")
        report = json.loads(next(Path(folder).glob("models/.cycles/trees/*/report.json")).read_text())
    figures = report["figures"]
    told = {name: round(figures[who]["metrics"]["accuracy"], 4) for name, who in (("new", "candidate"), ("active", "active"))}
    return Result("cycle", report["data"]["rows"], [cycle["seconds"]],
                  "features, labels, 30 trials, the final training, evaluation, certificate, report", {},
                  {"train_seconds": train["seconds"], "memory_mb": cycle["memory_mb"], "status": report["status"], "reason": report["reason"],
                   "right_directions": told, "compared_on": figures["active_unseen"]["rows"]})


def _penstock(folder: str, *words: str) -> dict[str, Any]:
    """Run it; how long it took, and the most memory that it or one before it had."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "cli.main", *words, "--registry", "models", "--json"], cwd=folder, capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode not in (0, 3):
        raise RuntimeError(f"penstock {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return {"seconds": round(time.perf_counter() - began, 1), "memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}
