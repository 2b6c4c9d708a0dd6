"""The commands that train: from recorded files to a registered version, and what they say to a mistake."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.errors import guarded
from cli.main import app
from research.learning.dataset import DEFAULT_FEATURES
from research.learning.registry import Registry
from tests.market_tapes import DATA
from tests.test_training_data import recorded

QUICK = ["--param", "rounds=15", "--param", "min_data_in_leaf=20"]


@pytest.fixture
def bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two symbols of recorded minutes in the folder that is worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_MODELS", raising=False)
    write(tmp_path / "bars", 700)
    return tmp_path / "bars"


def write(folder: Path, minutes: int) -> None:
    folder.mkdir(exist_ok=True)
    rows = recorded(minutes)
    for symbol, name in enumerate(("AAA", "BBB")):
        mine = rows[rows["symbol"] == symbol]
        columns = {"timestamp": pa.array(mine["ts_open_ns"].copy(), pa.timestamp("ns", "UTC"))}
        columns |= {c: pa.array(mine[c].copy()) for c in ("open", "high", "low", "close", "volume")}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def run(*args: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    import contextlib
    import io
    said, complained = io.StringIO(), io.StringIO()
    code = 0

    def call() -> None:
        nonlocal code
        found = app(list(args), standalone_mode=False)
        code = found if isinstance(found, int) else 0

    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        failed = guarded(call)
    return failed or code, said.getvalue(), complained.getvalue()


def good(*args: str) -> Any:
    code, said, complained = run(*args, "--json")
    assert code == 0, complained
    return json.loads(said)


def test_train_then_retrain(bars: Path) -> None:
    first = good("model", "train", "--data", "bars", "--horizon", "5m", "--name", "trees", "--tag", "exp1", *QUICK)
    assert (first["name"], first["version"], first["tag"], first["timeframe"], first["label"]["horizon"]) == ("trees", 1, "exp1", "1m", "5m")
    assert first["features"] == list(DEFAULT_FEATURES) and first["parameters"]["rounds"] == 15
    registry = Registry.open()
    kept = registry.get("trees", 1)
    assert kept.digest == first["digest"] and kept.card.about["tag"] == "exp1" and registry.versions("trees")[0].state == "CANDIDATE"
    again = good("model", "train", "--data", "bars", "--horizon", "5m", "--name", "trees", "--tag", "exp1", *QUICK)
    assert again["version"] == 2 and registry.get("trees", 2).payload == kept.payload
    write(bars, 900)  # the same minutes, and more
    newer = good("model", "retrain", "--limit", "600", "--tag", "exp2", "--base", "1")
    assert newer["version"] == 3 and newer["parent"] == 1 and newer["data"]["rows"] == 600 and newer["parameters"] == first["parameters"]
    assert newer["data"]["ts_to_ns"] > first["data"]["ts_to_ns"] and registry.get("trees", 3).card.about["lineage"] == {"parent": 1}
    shown = good("model", "show", "trees@exp2")
    assert shown["version"] == 3


def test_train_with_a_search(bars: Path) -> None:
    pytest.importorskip("optuna")
    made = good("model", "train", "--data", "bars", "--horizon", "5m", "--trials", "3", "--storage", "sqlite:///study.db", *QUICK)
    assert made["search"]["trials"] == 3 == len(made["search"]["history"]) and Path("study.db").exists()
    assert Registry.open().get("model", 1).card.about["lineage"]["search"]["study"] == made["search"]["study"]


def test_train_says_what_it_did(bars: Path) -> None:
    code, said, _ = run("model", "train", "--data", "bars", "--features", "rsi(14) macd( 12, 26, 9 ).histogram", "--label", "triple_barrier",
                        *QUICK)
    assert code == 0 and "model version 1" in " ".join(said.split()) and "penstock model promote model 1" in " ".join(said.split())
    assert Registry.open().get("model", 1).card.features == ("rsi(14)", "macd( 12, 26, 9 ).histogram")


def test_walk_forward_writes_its_report(bars: Path) -> None:
    command = ["walk-forward", "--data", "bars", "--train", "6h", "--test", "2h", "--horizon", "5m", *QUICK]
    made = good(*command, "--out", "walk.html")
    assert len(made["windows"]) == 2 and made["embargo"] == "5m" and made["overall"]["rows"] == sum(w["rows"] for w in made["windows"])
    assert "Walk-forward of lightgbm" in Path("walk.html").read_text("utf-8")
    code, said, _ = run(*command)
    assert code == 0 and "breaks even at" in " ".join(said.split())


@pytest.mark.parametrize(("args", "said"), [
    (["model", "train"], "say what to learn from: --data PATH"),
    (["model", "train", "--data", "bars", "--run", "x"], "not both"),
    (["model", "train", "--data", "nowhere"], "nowhere"),
    (["model", "train", "--data", "bars", "--model", "lightgmb"], 'did you mean "lightgbm"'),
    (["model", "train", "--data", "bars", "--param", "num_leaf=3"], 'did you mean "num_leaves"'),
    (["model", "train", "--data", "bars", "--param", "num_leaves"], "is not NAME=NUMBER"),
    (["model", "train", "--data", "bars", "--features", "rsj(14)"], 'did you mean "rsi"'),
    (["model", "train", "--data", "bars", "--label", "forward"], 'did you mean "forward_return"'),
    (["model", "train", "--data", "bars", "--horizon", "soon"], '"soon" is not an interval'),
    (["model", "train", "--data", "bars", "--horizon", "30s"], "shorter than a bar of 1m"),
    (["model", "train", "--data", "bars", "--limit", "-1"], "--limit -1 is negative"),
    (["model", "train", "--data", "bars", "--limit", "100"], "100 rows in the data set, and at least 200"),
    (["model", "train", "--data", "bars", "--label-threshold", "1"], "one class only"),
    (["model", "train", "--data", "bars", "--features", "rsi(14) month"], "constant in all"),
    (["model", "train", "--data", "bars", "--name", "No Name"], "a name in the registry"),
    (["model", "retrain"], "no model in"),
    (["walk-forward", "--data", "bars", "--train", "6 months", "--test", "1mo"], "is not a duration"),
    (["walk-forward", "--data", "bars", "--train", "6mo", "--test", "1mo"], "no window: the data spans 0.4 days; one trains on 6mo"),
    (["walk-forward", "--data", "bars", "--train", "6h", "--test", "1h", "--cost-bps", "-1"], "from 0 on"),
])
def test_a_mistake_is_one_line_and_exit_code_2(bars: Path, args: list[str], said: str) -> None:
    code, shown, complained = run(*args, "--json")
    assert code == 2 and shown == "" and said in " ".join(complained.split()), complained


def test_help_names_the_features_that_are_the_default() -> None:
    shown = CliRunner().invoke(app, ["model", "train", "--help"], env={"COLUMNS": "200"}).output
    for name in DEFAULT_FEATURES:
        assert name in shown, name


def test_on_recorded_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand real minutes: it trains, and what it says of itself out of sample is near even, as honest figures are."""
    path = DATA / "bars" / "spot_1m_2021-04_05" / "ETHUSDT.parquet"
    if not path.exists():
        pytest.skip(f"no recorded bars at {path}; set PENSTOCK_DATA")
    monkeypatch.chdir(tmp_path)
    command = ["--data", str(path), "--horizon", "15m", "--limit", "6000", "--param", "rounds=60"]
    made = good("model", "train", *command)
    assert made["data"]["rows"] == 6000 and made["data"]["counts"]["unlabelled"] == 15
    assert made["metrics"]["rows"] == 1200 and 0.3 < made["metrics"]["accuracy"] < 0.7
    walk = good("walk-forward", *command, "--train", "2d", "--test", "12h")
    assert walk["overall"]["rows"] > 2000 and 0.4 < walk["overall"]["accuracy"] < 0.6 and walk["trading"]["net"] < walk["trading"]["gross"]
