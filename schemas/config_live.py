"""The sections of a configuration that only a running pipeline reads: kafka, exchange, venue, live.

Secrets are never in the file: a value `${NAME}` is taken from the environment by whoever opens the connection
(`sources`, `sinks`), and an unset name is an error there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from schemas.errors import UserError, unknown

PREFIX = "penstock."
_Section = TypeVar("_Section")


@dataclass(frozen=True)
class KafkaConfig:
    """servers: bootstrap addresses, `host:port,host:port`. prefix: what the topics' names begin with. options: more settings of
    librdkafka, such as security.protocol; `${NAME}` in a value is read from the environment."""

    servers: str = "127.0.0.1:9092"
    prefix: str = PREFIX
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExchangeConfig:
    """Where prices come from. name: a ccxt id, in the order of priority in `names` where there are several. symbols: as ccxt
    writes them, such as BTC/USDT. tables: of trades, quotes, funding. beat_s: seconds between heartbeats. silence: a symbol
    is silent after so many times the longest usual gap between its events. clock_offset_s_max: refuse beyond this."""

    names: tuple[str, ...] = ("binance",)
    symbols: tuple[str, ...] = ()
    tables: tuple[str, ...] = ("trades", "quotes")
    beat_s: float = 1.0
    silence: float = 5.0
    timeout_s: float = 10.0
    rotate_s: float = 82_800.0
    clock_offset_s_max: float = 1.0
    requests_per_minute_max: float = 600.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VenueConfig:
    """Where live orders go. name: a ccxt id. age_s_max: an order older than this is not sent. recv_window_s: the venue refuses a
    request that arrives later than this after it was signed. margin_s: how far clocks may differ, and how long an order that the
    venue took may stay invisible there. key, secret: names in the environment, as `${NAME}`."""

    name: str = "binance"
    key: str = ""
    secret: str = ""
    age_s_max: float = 5.0
    recv_window_s: float = 5.0
    margin_s: float = 1.0
    timeout_s: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveConfig:
    """How the pipeline runs. state_dir: recovery store and recorded input. snapshot_s: seconds between snapshots. hold_s: how long a
    missing sequence number is waited for. held_rows_max: rows held back meanwhile. metrics_port: 0 for none. record_features: whether the
    values of features leave the pipeline."""

    state_dir: str = ".penstock/live"
    snapshot_s: float = 5.0
    hold_s: float = 30.0
    held_rows_max: int = 1_000_000
    shards: int = 1
    metrics_port: int = 0
    record_features: bool = True


def parse_section(kind: type[_Section], document: object, where: str) -> _Section:
    """A section from a mapping; UserError for a key that it does not have, or a value of another type, with both named."""
    if not isinstance(document, Mapping):
        raise UserError(f"{where}: not a mapping of keys to values")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    made: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise unknown(f"{where} key", str(key), list(known))
        made[key] = _value(getattr(kind, key, None), value, f"{where} {key}")
    return kind(**made)


def _value(default: Any, value: Any, where: str) -> Any:
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise UserError(f'{where}: "{value}" is not true or false')
    if isinstance(default, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or (isinstance(default, int) and value != int(value)):
            raise UserError(f'{where}: "{value}" is not a {"whole " if isinstance(default, int) else ""}number from 0 on')
        return type(default)(value)
    if isinstance(default, tuple):
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise UserError(f'{where}: "{value}" is not a list of names')
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise UserError(f'{where}: "{value}" is not text')
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: not a mapping of keys to values")
    return {str(k): v for k, v in value.items()}
