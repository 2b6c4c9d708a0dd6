"""The instrument that a file's name speaks of, where no column names one.

A name is cut at `-`, `_`, `.` and spaces; what says a date, an interval, a kind of data or a market is dropped, and
what remains is the symbol in upper case: `btcusdt-trades-2024-01-01.zip` and `usdm_btcusdt_20240808.gz` are BTCUSDT.
"""

import re
from pathlib import PurePath

from schemas.errors import UserError

_SUFFIX = re.compile(
    r"\.(parquet|pq|csv|txt|tsv|gz|gzip|zip|arrow|arrows|ipc|feather|json|jsonl|ndjson)$", re.IGNORECASE
)
_DATE = re.compile(r"\d{1,2}|\d{4}|\d{6}|\d{8}|\d{10,}|\d{4}q[1-4]")
_INTERVAL = re.compile(r"\d+(ns|us|ms|s|sec|m|min|h|hour|d|day|w|mo|month|y|t)", re.IGNORECASE)
_WORD = re.compile(
    r"trades|trade|aggtrades|aggtrade|klines|kline|candles|candle|bars|bar|ohlc|ohlcv|quotes|quote|bookticker|book"
    r"|top|depth|bbo|l1|ticks|tick|tape|data|prices|price|history|recorded|recording|beats|frames|export|out|output"
    r"|part|all|sample|spot|usdm|coinm|um|cm|futures|future|perp|perpetual|swap|linear|inverse|margin|fx|equity"
    r"|binance|bybit|okx|kraken|coinbase|nasdaq|nyse|daily|hourly|monthly|minute|weekly|utc",
    re.IGNORECASE,
)

_UNITS_NS = {
    "ms": 1_000_000,
    "s": 10**9,
    "sec": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "t": 60 * 10**9,
    "h": 3600 * 10**9,
    "hour": 3600 * 10**9,
    "d": 86400 * 10**9,
    "day": 86400 * 10**9,
    "w": 7 * 86400 * 10**9,
}


def symbol_of(path: str) -> str:
    """The symbol that the name of `path` gives; UserError where nothing of it can be one."""
    kept = [
        t for t in _tokens(path) if not (_DATE.fullmatch(t.lower()) or _INTERVAL.fullmatch(t) or _WORD.fullmatch(t))
    ]
    if not any(re.search("[A-Za-z]", t) for t in kept):
        raise UserError(
            f"{path}: no column names the symbol and neither does the file's name; "
            f'rename it to something like "BTCUSDT-{PurePath(path).name}" or add a column "symbol"'
        )
    return "-".join(kept).upper()


def interval_of(path: str) -> int | None:
    """The bar interval in ns that the name of `path` states, as in `BTCUSDT-1m-2024-01.csv`, or None."""
    for token in _tokens(path):
        if _INTERVAL.fullmatch(token):
            digits = re.match(r"\d+", token)
            unit = token[digits.end() :].lower() if digits else ""
            if digits and unit in _UNITS_NS and int(digits.group()) > 0:
                return int(digits.group()) * _UNITS_NS[unit]
    return None


def _tokens(path: str) -> list[str]:
    name = PurePath(path).name
    while _SUFFIX.search(name):
        name = _SUFFIX.sub("", name)
    return [t for t in re.split(r"[-_.\s]+", name) if t]
