"""`penstock execute` and `penstock exchange fake` as a user runs them, and what they say of a user's mistakes."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.errors import guarded
from cli.executing import execute_command, fake_exchange_command
from schemas.config_live import KafkaConfig
from tests.children import COMMAND, running
from tests.execute_setup import Desk, Exchange, last_reports, make_topics, read_topic
from tests.kafka_broker import kafka, servers  # noqa: F401

SECRET = "hunter2-hunter2"


def penstock(*args: str) -> tuple[int, str, str]:
    """Code, output and errors of a command that ends by itself."""
    with running([*COMMAND, *args]) as child:
        return ended(child)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def desk(kafka: KafkaConfig) -> Desk:  # noqa: F811
    make_topics(kafka)
    return Desk(kafka)


def config_of(desk: Desk, tmp_path: Path, **venue: Any) -> str:
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump({"kafka": {"servers": desk.kafka.servers, "prefix": desk.kafka.prefix}, "venue": venue}))
    return str(path)


def test_a_rehearsal_from_the_command_line(desk: Desk, tmp_path: Path) -> None:
    with running([*COMMAND, "exchange", "fake", "--price", "BTC/USDT=50000", "--port", "0", "--file", str(tmp_path / "books.jsonl"), "--json",
                  "--cue", "order:drop_after"]) as served:
        assert served.stdout is not None
        url = json.loads(served.stdout.readline())["url"]
        config = config_of(desk, tmp_path, name="fake", age_s_max=600, options={"url": url})
        desk.write(desk.approve(1), desk.approve(2, ts_ns=time.time_ns() - 700 * 10**9))

        code, out, err = penstock("execute", "--config", config, "--dry-run")
        assert code == 0, err
        lines = out.splitlines()
        assert lines[0] == "1 0000000000000001 market buy 0.01000000 BTC/USDT: would be sent" and "too old" in lines[1]
        assert read_topic(desk.kafka, "reports") == []

        code, out, err = penstock("execute", "--config", config, "--drain", "--json")
        assert code == 0, err
        said = json.loads(out)
        assert {k: said[k] for k in ("approvals", "sent", "filled", "expired", "doubted", "open", "real")} == {
            "approvals": 2, "sent": 1, "filled": 1, "expired": 1, "doubted": 1, "open": 0, "real": False}
        assert {r["state"] for r in last_reports(desk.kafka, "paper").values()} == {"filled", "expired"}

        desk.write(desk.approve(3, wrong=True))
        code, out, err = penstock("execute", "--config", config, "--json")
        assert code == 3 and "approval 3 does not follow from the one before it" in json.loads(out)["broken"]
        assert "--skip-offset" in err and "Traceback" not in err
        served.send_signal(signal.SIGTERM)
        assert ended(served)[0] == 0
    assert (tmp_path / "books.jsonl").read_text().count('"place"') == 1


def test_a_running_process_ends_on_sigterm_with_its_counts(desk: Desk, tmp_path: Path) -> None:
    exchange = Exchange()
    try:
        config = config_of(desk, tmp_path, name="fake", age_s_max=600, options={"url": exchange.url})
        desk.write(desk.approve(1, order_type="limit", limit_price="40000"))
        with running([*COMMAND, "execute", "--config", config, "--json"]) as child:
            while len(read_topic(desk.kafka, "reports")) < 2:
                assert child.poll() is None, ended(child)
                time.sleep(0.1)
            child.send_signal(signal.SIGTERM)
            code, out, err = ended(child)
        assert code == 0, err
        assert json.loads(out)["open"] == 1
    finally:
        exchange.stop()


def test_mistakes_are_one_line_each(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*, venue: dict[str, Any] | None = None, **given: Any) -> str:
        config = config_of(desk, tmp_path, **(venue or {"name": "fake"}))
        options = {"config": config, "servers": None, "venue": None, "live": False, "dry_run": False, "drain": True, "skip_offset": [],
                   "as_json": True, **given}
        code = guarded(lambda: execute_command(**options))
        out, err = capsys.readouterr()
        assert code == 2 and out == "" and err.count("\n") == 1 and SECRET not in err, err
        return err

    keys = {"key": "${VENUE_TEST_KEY}", "secret": "${VENUE_TEST_SECRET}"}
    assert 'unknown exchange "binanse"; did you mean "binance"?' in said(venue={"name": "binanse"})
    assert "VENUE_TEST_KEY" in said(venue={"name": "binance", **keys})
    monkeypatch.setenv("VENUE_TEST_KEY", SECRET)
    monkeypatch.setenv("VENUE_TEST_SECRET", SECRET)
    assert "has no testnet" in said(venue={"name": "kraken", **keys})
    assert "give one of them" in said(live=True, dry_run=True)
    assert "did you mean \"age_s_max\"" in said(venue={"name": "fake", "agesmax": 3})
    assert "kafka" in said(config=None)
    assert guarded(lambda: fake_exchange_command(["BTC/USDT"], 0, None, "10", [], 0.0, 0, True)) == 2
    assert "BTC/USDT=50000" in capsys.readouterr().err
