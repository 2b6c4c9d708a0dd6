"""`penstock learn`, `model evaluate`, `model certify`: from a simulated market to certificates, scores of a stored run, and users' mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from research.learning.baseline import baseline_of_frames, rules_alone
from research.learning.registry import Registry
from schemas.config_live import KafkaConfig
from tests.execute_setup import make_topics
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.test_registry_cli import told

ROOT = Path(__file__).resolve().parent.parent
FEATURES = "log_ret(1) log_ret(5) rsi(14) zscore(20)"
CONFIG = """
models:
  t: {kind: registered, name: trees}
strategies: [momentum]
learn:
  data: ["sim:2:14:5"]
  shadow_rows: 50
  governance: {period: 1h, cost_bps: 5, rows_min: 200}
"""


def started(folder: Path, *args: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen([sys.executable, "-m", "cli.main", *args], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def penstock(folder: Path, *args: str, code: int = 0) -> tuple[list[Any], str]:
    """What `penstock … --json` prints, line by line, and what it says on standard error."""
    with started(folder, *args, "--json") as child:
        said, trouble = child.communicate(timeout=600)
    assert child.returncode == code, trouble
    return [json.loads(line) for line in said.splitlines()], " ".join(trouble.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "config.yaml").write_text(CONFIG)
    penstock(folder, "model", "train", "--data", "sim:2:10:5", "--name", "trees", "--features", FEATURES, "--limit", "700")
    return folder


def test_evaluate_says_everything_and_leaves_out_what_was_trained_on(home: Path) -> None:
    (found,), _ = penstock(home, "model", "evaluate", "trees", "--data", "sim:2:14:5", "--out", "page.html", "--window", "1h")
    assert found["version"] == 1 and not found["in_sample"]
    assert set(found["symbols"]) == {"SIM000", "SIM001"}
    assert sum(m["rows"] for m in found["symbols"].values()) == found["overall"]["rows"]
    assert len(found["over_time"]) >= 2
    card = Registry(home / ".penstock" / "models").get("trees", 1).card
    assert found["ts_from_ns"] > card.about["data"]["labels_to_ns"]
    (whole,), _ = penstock(home, "model", "evaluate", "trees@1", "--data", "sim:2:14:5", "--all")
    assert whole["overall"]["rows"] > found["overall"]["rows"] and whole["in_sample"]
    page = (home / "page.html").read_text()
    for part in ("trees version 1: evaluation", "SIM001", "Calibration", "only rows that it was not trained on", "figure-evaluation-course"):
        assert part in page


def test_certify_adds_to_the_chain_and_says_no_by_its_exit_code(home: Path) -> None:
    (made,), _ = penstock(home, "model", "certify", "trees@1", "--data", "sim:2:14:5", "--config", "config.yaml", code=1)
    assert made["verdict"] == "refused" and made["baseline"]["name"] == "momentum"
    assert not all(c["passed"] for c in made["checks"]) and made["limits"]["rows_min"] == 200
    (chain,), _ = penstock(home, "model", "certificates")
    assert chain["ok"] and chain["list"][-1]["digest"] == made["digest"]
    path = home / ".penstock" / "models" / "certificates.jsonl"
    kept = path.read_text()
    path.write_text(kept.replace('"refused"', '"certified"'))
    (chain,), _ = penstock(home, "model", "certificates", code=1)
    assert not chain["ok"] and chain["broken"] >= 1
    path.write_text(kept)


def test_learn_once_tells_each_step(home: Path) -> None:
    told, _ = penstock(home, "learn", "--config", "config.yaml", "--once")
    events = [e["event"] for e in told]
    assert events[:4] == ["triggered", "trained", "evaluated", "registered"] and events[-1] == "look"
    assert told[-1]["status"] in ("refused", "promoted") and told[-1]["version"] >= 2
    assert (home / told[-1]["report"]).read_text().startswith("# trees: learning cycle 1")
    again, _ = penstock(home, "learn", "--config", "config.yaml", "--once")
    assert [e["status"] for e in again] == ["idle"]  # the pause


def test_learn_on_the_scores_of_a_stored_run(home: Path, tmp_path: Path) -> None:
    """The replay scores version 1 as it goes; the manager reads these scores, and the bars of the run."""
    import shutil
    shutil.copytree(home, tmp_path / "home", ignore=shutil.ignore_patterns("warehouse"))
    place = tmp_path / "home"
    (place / "config.yaml").write_text(CONFIG.replace("learn:", "learn:\n  accuracy_floor: 0.0\n  watch_rows_min: 50"))
    penstock(place, "model", "promote", "trees", "1", "--at", "2020-01-01", "--backdate")
    penstock(place, "replay", "sim:2:14:5", "--config", "config.yaml", "--run-id", "r")
    told, _ = penstock(place, "learn", "--config", "config.yaml", "--run", "r", "--once", "--now", "look")
    watched = told[-1]["watch"]
    rows = penstock(place, "warehouse", "query", "SELECT count() AS n, avg(hit) AS a FROM scores FINAL WHERE model = 't' AND version = 1")[0][0]
    assert watched["version"] == 1 and watched["rows"] == rows["rows"][0]["n"] > 500
    assert watched["accuracy"] == pytest.approx(rows["rows"][0]["a"])
    assert told[0]["event"] == "triggered" and told[0]["why"] == ["look"]
    assert told[-1]["status"] in ("refused", "waiting for scores in shadow")


def test_a_signal_ends_the_watch_in_order(home: Path) -> None:
    with started(home, "learn", "--config", "config.yaml", "--every", "600", "--json") as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"] == "look"
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        _, trouble = child.communicate(timeout=120)
    assert child.returncode == 0, trouble


@pytest.mark.parametrize(("args", "message"), [
    (("learn", "--once"), "no registered model to learn"),
    (("learn", "--name", "trees", "--once"), "say what to learn from"),
    (("learn", "--config", "config.yaml", "--name", "tress", "--once"), 'did you mean "trees"'),
    (("learn", "--name", "tress", "--data", "sim:1:1:1", "--once"), 'did you mean "trees"'),
    (("learn", "--name", "trees", "--data", "x", "--run", "r", "--once"), "give one of them"),
    (("learn", "--config", "bad.yaml", "--once"), 'did you mean "drawdown_max"'),
    (("learn", "--config", "config.yaml", "--approve"), "waits for approval"),
    (("learn", "--config", "config.yaml", "--abort", "x"), "no cycle of trees is under way"),
    (("model", "evaluate", "trees"), "say what to judge it on"),
    (("model", "evaluate", "trees", "--data", "sim:2:3:5"), "was trained on all of this"),
    (("model", "evaluate", "trees@9", "--data", "sim:2:14:5"), "trees has no version 9"),
    (("model", "evaluate", "trees", "--data", "sim:2:14:5", "--window", "soon"), "--window"),
    (("model", "certify", "trees", "--data", "nowhere/*.csv"), "nowhere"),
])
def test_mistakes_end_with_two(home: Path, args: tuple[str, ...], message: str) -> None:
    (home / "bad.yaml").write_text(CONFIG.replace("rows_min", "drawdwn_max"))
    told, trouble = penstock(home, *args, code=2)
    assert told == [] and message in trouble, trouble


def test_the_rules_baseline_is_what_a_plain_loop_gives() -> None:
    """Positions from signals, signal by signal: the last one at or before a bar's place on the tape says what is held after it."""
    from operators.market.bars import Bars, BarsConfig
    from operators.market.features import Features
    from operators.market.quality import Quality
    from operators.protocol import Chain
    from operators.strategies.builtin import builtin
    from operators.strategies.orchestrator import Strategies
    from operators.strategies.rules import required_features
    from schemas.tables import BARS, SIGNALS
    from sources.simulator import simulate
    minute = 60 * 10**9
    specs = (builtin("momentum"),)
    tape = simulate(2, 8.0, 3)
    found = baseline_of_frames(specs, tape.frames(5000), minute)
    chain = Chain([Quality(None), Bars(BarsConfig((minute,))), Features(required_features(specs)), Strategies(specs)])
    bars: dict[int, list[tuple[int, int, float]]] = {}
    signals: dict[int, list[tuple[int, int]]] = {}
    for frame in tape.frames(777):
        made = chain.step(frame)
        for b in made.rows(BARS):
            bars.setdefault(int(b["symbol"]), []).append((int(b["seq"]), int(b["ts_event_ns"]), float(b["close"])))
        for s in made.rows(SIGNALS):
            signals.setdefault(int(s["symbol"]), []).append((int(s["seq"]), (1, -1, 0)[int(s["action"])]))
    assert sum(len(s) for s in signals.values()) > 10
    total, cost = 0.0, 7.0
    for code, rows in bars.items():
        held, last = 0, None
        for seq, _, close in rows:
            if last is not None:
                total += held * (close / last - 1.0) / len(bars)
            want = next((side for at, side in reversed(signals.get(code, [])) if at <= seq), 0)
            total -= abs(want - held) * cost / 1e4 / len(bars)
            held, last = want, close
    ts = [t for rows in bars.values() for _, t, _ in rows]
    returns, changes = found.returns(min(ts), max(ts), 60 * minute, cost)
    assert returns.sum() == pytest.approx(total, abs=1e-12) and changes > 10
    assert len(rules_alone(specs, ["momentum_model"])) == 1


def test_a_look_tells_the_topic_what_it_does_not_know_yet(home: Path, kafka: KafkaConfig, tmp_path: Path) -> None:  # noqa: F811
    make_topics(kafka)
    shutil.copytree(home / ".penstock" / "models", tmp_path / ".penstock" / "models", ignore=shutil.ignore_patterns(".cycles"))
    (tmp_path / "live.yaml").write_text(f"{CONFIG}kafka: {{servers: '{kafka.servers}', prefix: '{kafka.prefix}'}}\n")
    (first,), _ = penstock(tmp_path, "model", "promote", "trees", "1", "--config", "live.yaml")
    assert first["published"] == 1
    penstock(tmp_path, "model", "retire", "trees", "1")  # as if the broker had not been there
    looks, _ = penstock(tmp_path, "learn", "--once", "--config", "live.yaml")
    assert looks[-1]["event"] == "look" and looks[-1]["published"] == 1
    assert [(version, action) for _, version, action in told(kafka)] == [(1, "activate"), (1, "retire")]
    again, _ = penstock(tmp_path, "learn", "--once", "--config", "live.yaml")
    assert again[-1]["published"] == 0


def test_a_name_that_cannot_be_kept_is_refused_before_training(tmp_path: Path) -> None:
    for words, said in ((("--name", "My model"), 'model "My model"'), (("--tag", "42"), 'tag "42"')):
        _, trouble = penstock(tmp_path, "model", "train", "--data", "no/such/file.parquet", *words, code=2)
        assert said in trouble and "no such file" not in trouble
