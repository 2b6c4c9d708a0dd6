"""Logs: one line a record, UTC, and no secret in any of them, whatever way it came."""

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cli.secrets import expanded
from schemas.config import Config
from schemas.config_live import KafkaConfig, VenueConfig
from schemas.errors import UserError
from telemetry import logs

SECRET = "hunter2-hunter2"


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    monkeypatch.setattr(logs, "_protected", set())
    root, ours = logging.getLogger(), logging.getLogger("penstock")
    before = root.handlers, root.level, ours.level
    yield io.StringIO()
    root.handlers, root.level, ours.level = before[0], before[1], before[2]
    logging.captureWarnings(False)


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object_in_utc(stream: io.StringIO) -> None:
    logs.set_up("json", stream=stream)
    logs.get("ingest").info("connected", exchange="binance", symbols=2, share=0.5, gone=None, names=("a", "b"))
    (said,) = records(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(said.pop("ts")))
    assert said == {"level": "info", "logger": "ingest", "event": "connected", "exchange": "binance", "symbols": 2, "share": 0.5, "gone": None,
                    "names": ["a", "b"]}


def test_the_time_is_utc_whatever_the_machine_says(stream: io.StringIO) -> None:
    logs.set_up("json", stream=stream)
    record = logging.LogRecord("penstock.x", logging.INFO, "", 0, "e", (), None)
    record.created = 1_600_000_000.5
    assert json.loads(logs.JsonFormatter().format(record))["ts"] == "2020-09-13T12:26:40.500Z"


def test_text_is_one_line_and_values_with_blanks_are_quoted(stream: io.StringIO) -> None:
    logs.set_up("text", stream=stream)
    logs.get("pipeline").warning("slow\nframe", seconds=1.5, why="disk is full", topics=["a", "b"], what="x=1", line="a\nb", none="")
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line.split(" ", 1)[1] == 'warning pipeline: slow\\nframe seconds=1.5 why="disk is full" topics="[\\"a\\", \\"b\\"]" what="x=1" line="a\\nb" none=""\n'


@pytest.mark.parametrize("form", logs.FORMATS)
def test_secrets_are_hidden_by_name_at_any_depth(stream: io.StringIO, form: str) -> None:
    logs.set_up(form, stream=stream)
    logs.get("x").info("options", **{"sasl.password": SECRET, "apiKey": SECRET, "venue": {"key": SECRET, "list": [{"secret": SECRET}]},
                                     "Authorization": SECRET, "listen_token": SECRET})
    assert SECRET not in stream.getvalue() and stream.getvalue().count(logs.HIDDEN) == 6


@pytest.mark.parametrize("form", logs.FORMATS)
def test_secrets_are_hidden_by_value_wherever_they_turn_up(stream: io.StringIO, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_SECRET", SECRET)
    logs.set_up(form, stream=stream)
    logs.protect("from-elsewhere")
    log = logs.get("x")
    log.info(f"event {SECRET}", text=f"signed with {SECRET}.", inner={"a": [SECRET]}, other="from-elsewhere")
    try:
        raise ValueError(f"400 for https://user:pa55word@host/x?signature=abcdef&apiKey=qwerty and {SECRET}")
    except ValueError:
        log.exception("failed")
    logging.getLogger("some.library").warning("cannot connect with %s", SECRET)
    said = stream.getvalue()
    for hidden in (SECRET, "from-elsewhere", "pa55word", "abcdef", "qwerty"):
        assert hidden not in said
    assert "https://[hidden]@host/x?signature=[hidden]&apiKey=[hidden]" in said


def test_short_values_of_secret_variables_do_not_blot_out_words(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a")
    logs.set_up("json", stream=stream)
    logs.get("x").info("a b c")
    assert records(stream)[0]["event"] == "a b c"


def test_an_exception_is_in_the_record_it_belongs_to(stream: io.StringIO) -> None:
    logs.set_up("json", stream=stream)
    try:
        raise KeyError("gone")
    except KeyError:
        logs.get("x").exception("lookup failed", table="bars")
    (said,) = records(stream)
    assert said["error"] == "KeyError: 'gone'" and "Traceback" in str(said["trace"]) and said["table"] == "bars" and said["level"] == "error"


def test_levels_and_libraries(stream: io.StringIO) -> None:
    logs.set_up("json", "warning", stream=stream)
    logs.get("x").info("quiet")
    logs.get("x").warning("heard")
    logging.getLogger("some.library").info("quiet too")
    logging.getLogger("some.library").error("heard too")
    assert [(r["logger"], r["event"]) for r in records(stream)] == [("x", "heard"), ("some.library", "heard too")]


def test_fields_do_not_replace_what_every_record_has(stream: io.StringIO) -> None:
    logs.set_up("json", stream=stream)
    logs.get("x").info("said", ts=5, level=2)
    (said,) = records(stream)
    assert said["level"] == "info" and said["level_"] == 2 and said["ts_"] == 5


def test_what_json_cannot_hold_is_text(stream: io.StringIO) -> None:
    logs.set_up("json", stream=stream)
    logs.get("x").info("odd", value=float("nan"), path=object, raw=b"\xff")
    (said,) = records(stream)
    assert said["value"] == "nan" and "object" in str(said["path"]) and said["raw"] == "b'\\xff'"


def test_unknown_form_and_level() -> None:
    with pytest.raises(UserError, match='unknown log format "jsn"; did you mean "json"'):
        logs.set_up("jsn")
    with pytest.raises(UserError, match='unknown log level "warn"; did you mean "warning"'):
        logs.set_up("text", "warn")


def test_what_a_configuration_takes_from_the_environment_is_hidden(stream: io.StringIO) -> None:
    config = Config(kafka=KafkaConfig(servers="${BROKER}", options={"sasl.password": "${WORD}"}), venue=VenueConfig(key="${A}", secret="${B}"))
    expanded(config, {"BROKER": "broker.example:9092", "WORD": "open-sesame", "A": "key-of-venue", "B": "secret-of-venue"})
    logs.set_up("json", stream=stream)
    logs.get("x").info("with broker.example:9092: open-sesame key-of-venue secret-of-venue")
    assert records(stream)[0]["event"] == "with broker.example:9092: [hidden] [hidden] [hidden]"


@pytest.mark.parametrize(("given", "code", "said"), [
    (["--log-format", "json", "strategies", "show", "nope"], 2, 'unknown strategy "nope"'),
    (["--log-format", "jsn", "strategies", "list"], 2, 'unknown log format "jsn"; did you mean "json"?'),
    (["strategies", "show", "nope"], 2, 'unknown strategy "nope"'),
])
def test_a_command_that_fails_says_so_in_the_form_that_was_asked_for(given: list[str], code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-m", "cli.main", *given], capture_output=True, text=True, check=False)
    assert done.returncode == code and done.stderr.count("\n") == 1 and done.stdout == ""
    text = json.loads(done.stderr)["event"] if given[1] == "json" else done.stderr.removeprefix("penstock: ")
    assert text.startswith(said)


def test_with_json_every_line_on_standard_error_is_an_object() -> None:
    done = subprocess.run([sys.executable, "-c", "from cli.output import err; from cli.logs import set_up_logs; set_up_logs('json', 'info'); "
                           "err.print('a long sentence ' * 20); err.print('[bold]two[/bold]\\nlines')"], capture_output=True, text=True, check=True)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [s["event"] for s in said] == [("a long sentence " * 20).strip(), "two", "lines"]
