"""Structured logs on standard error: one line a record, JSON or text, in UTC, with secrets taken out.

`log = logs.get("ingest")`, then `log.info("connected", exchange="binance", symbols=3)`: an event is a constant, what varies
is a field. A value whose key sounds like a secret is never written, nor is the value of a secret variable of the
environment, wherever it turns up: in a field, in an event, in the text of an error of a library.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from schemas.errors import unknown

Format = Literal["json", "text"]
FORMATS = ("json", "text")
LEVELS = ("debug", "info", "warning", "error")
HIDDEN = "[hidden]"
SECRET_LENGTH_MIN = 6
"""Shorter values are words that stand in every sentence."""

_SECRET_KEY = re.compile(
    r"secret|passw|passphrase|token|credential|authorization|cookie|private.?key|api.?key|access.?key|signature|(^|[._-])key$", re.I)
_IN_URL = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]+(?=@)")
_IN_QUERY = re.compile(r"\b(signature|apiKey|api_key|secret|token|password)=([^&\s\"']+)", re.I)
_protected: set[str] = set()


def protect(*values: str) -> None:
    """Never write these values: for secrets that came from elsewhere than a variable whose name says so."""
    _protected.update(v for v in values if len(v) >= SECRET_LENGTH_MIN)


def is_secret(name: str) -> bool:
    """Whether a key or a variable of that name holds a secret."""
    return _SECRET_KEY.search(name) is not None


def protect_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Protect the values of all variables whose names sound like secrets."""
    protect(*(value for name, value in environment.items() if is_secret(name)))


def redacted(value: Any, key: str = "") -> Any:
    """The value as it may be written: secrets replaced at any depth, everything else as JSON can hold it."""
    if key and is_secret(key) and value not in (None, "", False, True):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(k): redacted(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(v) for v in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    return redacted_text(str(value))


def redacted_text(text: str) -> str:
    """The text without the values of secrets, passwords of URLs and signatures of requests."""
    for secret in sorted(_protected, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _IN_QUERY.sub(rf"\1={HIDDEN}", _IN_URL.sub(HIDDEN, text))


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parts(record: logging.LogRecord, formatter: logging.Formatter) -> tuple[str, dict[str, Any]]:
    fields = dict(redacted(getattr(record, "fields", {})))
    if record.exc_info and record.exc_info[0] is not None:
        fields["error"] = redacted_text(f"{record.exc_info[0].__name__}: {record.exc_info[1]}")
        fields["trace"] = redacted_text(formatter.formatException(record.exc_info))
    return redacted_text(record.getMessage()), fields


class JsonFormatter(logging.Formatter):
    """One object a record: ts, level, logger, event, then the fields. A field of one of those names gets a `_` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _parts(record, self)
        said = {"ts": _timestamp(record), "level": record.levelname.lower(), "logger": record.name.removeprefix("penstock."),
                "event": event}
        said.update({k + "_" if k in said else k: v for k, v in fields.items()})
        return json.dumps(said, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z info ingest: connected exchange=binance`, for people; a line break in a value is written as \\n."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _parts(record, self)
        trace = fields.pop("trace", None)
        tail = "".join(f" {k}={_shown(v)}" for k, v in fields.items())
        line = f"{_timestamp(record)} {record.levelname.lower()} {record.name.removeprefix('penstock.')}: {_one_line(event)}{tail}"
        return line if trace is None else f"{line}\n{trace}"


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return json.dumps(text, ensure_ascii=False) if not text or any(c.isspace() or c in '"=' for c in text) else text


class Log:
    """A logger of one part of the platform."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"penstock.{name}")

    def debug(self, event: str, **fields: Any) -> None:
        self._say(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._say(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the exception that is being handled."""
        self._say(logging.ERROR, event, fields, failed=True)

    def _say(self, level: int, event: str, fields: dict[str, Any], failed: bool = False) -> None:
        self._logger.log(level, "%s", event, extra={"fields": fields}, exc_info=failed)


def get(name: str) -> Log:
    """The logger of a part: pipeline, ingest, execute, archive, kafka, …"""
    return Log(name)


def set_up(form: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Write all records, those of libraries too (from warning on), to standard error in that form. UserError for another form or level."""
    if form not in FORMATS:
        raise unknown("log format", form, FORMATS)
    if level not in LEVELS:
        raise unknown("log level", level, LEVELS)
    protect_environment()
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("penstock").setLevel(getattr(logging, level.upper()))
    logging.captureWarnings(True)
