"""The policy: every limit of the money side, with its unit and bounds, in one table.

A value is written with its unit (`2 %`, `15 min`, `10 bps`, `1000`) and kept as an int64: a fraction or an amount in
1e-8, a duration in ns, a count as it is. `compile_policy` gives the record that the compiled desk reads. A policy that is
changed is another version; nothing of it is read from anywhere but the record.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from blake3 import blake3

from schemas.errors import UserError, unknown
from schemas.money import UNITS, parse_units

FRACTIONS = {"%": Decimal("0.01"), "bps": Decimal("0.0001"), "x": Decimal(1)}
DURATIONS_NS = {
    "ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000, "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
AMOUNTS = ("quote", "base", "usd", "usdt")


@dataclass(frozen=True)
class Entry:
    """One key of the policy: what it measures, its default as text, its bounds in the same unit, and what it means."""

    name: str
    unit: str
    default: str
    low: str
    high: str
    doc: str


ENTRIES: tuple[Entry, ...] = (
    Entry("capital", "amount", "100000", "1", "1000000000", "cash that the paper account opens with"),
    Entry("risk_per_trade", "fraction", "1 %", "0.001 %", "10 %", "equity put at risk between entry and stop, times allocation"),
    Entry("notional_per_trade", "fraction", "10 %", "0.01 %", "1000 %", "equity put into a trade that has no stop"),
    Entry("volatility_target", "fraction", "0 %", "0 %", "500 %",
          "annualised volatility that a position is sized to; 0 sizes by risk"),
    Entry("position_risk_max", "fraction", "2 %", "0.001 %", "100 %", "most equity at risk to the stop in one trade"),
    Entry("position_notional_max", "fraction", "20 %", "0.01 %", "1000 %", "most equity in one position"),
    Entry("exposure_max", "fraction", "100 %", "0.01 %", "2000 %", "most gross notional of all positions, of equity"),
    Entry("heat_max", "fraction", "10 %", "0.01 %", "100 %", "most equity lost if every stop were hit"),
    Entry("leverage_max", "fraction", "1 x", "0.01 x", "20 x", "buying power, of equity"),
    Entry("positions_max", "count", "10", "1", "200", "open positions"),
    Entry("orders_max", "count", "60", "1", "500", "open orders"),
    Entry("daily_trades_max", "count", "100", "1", "1000000", "entries in a UTC day"),
    Entry("daily_loss_max", "fraction", "5 %", "0.01 %", "100 %", "loss since the UTC day began that stops entries for the day"),
    Entry("weekly_loss_max", "fraction", "10 %", "0.01 %", "100 %", "loss since Monday that stops entries for the week"),
    Entry("drawdown_reduce", "fraction", "10 %", "0.01 %", "100 %", "drawdown from which sizes are halved"),
    Entry("drawdown_halt", "fraction", "15 %", "0.01 %", "100 %", "drawdown at which everything is flattened and trading halts"),
    Entry("cooldown_after_loss", "duration", "15 min", "0 s", "30 d", "no entry in a symbol for this long after a loss in it"),
    Entry("price_age_max", "duration", "5 min", "1 ms", "30 d", "a price older than this is stale: nothing is decided on it"),
    Entry("notional_min", "amount", "10", "0", "1000000", "smallest order, quote units"),
    Entry("lot", "amount", "0.00001", "0.00000001", "1000000", "quantities are rounded down to a multiple of this, base units"),
    Entry("latency", "duration", "50 ms", "0 ns", "1 h", "from the decision until the order is at the venue"),
    Entry("participation", "fraction", "25 %", "0.01 %", "100 %", "share of a print's or bar's size that one order may take"),
    Entry("slippage", "fraction", "2 bps", "0 bps", "1000 bps", "price given up by every taking fill"),
    Entry("impact", "fraction", "5 bps", "0 bps", "1000 bps",
          "more price given up: this times the square root of the share taken of the print"),
    Entry("entry_limit", "fraction", "0 bps", "0 bps", "1000 bps",
          "entries rest as limit orders this far better than the price; with entry_stop, the limit of a stop-limit; 0: no limit"),
    Entry("entry_stop", "fraction", "0 bps", "0 bps", "1000 bps",
          "entries wait as stop orders until the price has moved this far their way; 0: no stop"),
    Entry("fee_maker", "fraction", "2 bps", "-10 bps", "1000 bps", "fee of a resting fill"),
    Entry("fee_taker", "fraction", "10 bps", "-10 bps", "1000 bps", "fee of a taking fill"),
    Entry("equity_interval", "duration", "1 min", "1 s", "1 d", "event time between equity samples"),
)
_BY_NAME = {e.name: e for e in ENTRIES}
POLICY_DTYPE = np.dtype([("version", "i8"), *((e.name, "i8") for e in ENTRIES)])

_NUMBER = re.compile(r"^\s*([-+]?[0-9][0-9_]*(?:\.[0-9]+)?|[-+]?\.[0-9]+)\s*([A-Za-z%]*)\s*$")


def parse_value(entry: Entry, text: object, where: str) -> int:
    """A value with its unit, in the units that the desk computes with; UserError names the place and the value."""
    match = _NUMBER.match(str(text))
    if isinstance(text, bool) or match is None:
        raise UserError(f'{where} {entry.name}: "{text}" is not a value; write it like "{entry.default}"')
    number, unit = Decimal(match[1].replace("_", "")), match[2]
    if entry.unit == "fraction":
        if unit not in FRACTIONS:
            raise UserError(f'{where} {entry.name}: "{text}" has the wrong unit; write a fraction in %, bps or x, like "{entry.default}"')
        return parse_units(number * FRACTIONS[unit])
    if entry.unit == "duration":
        if unit not in DURATIONS_NS:
            raise UserError(f'{where} {entry.name}: "{text}" has the wrong unit; write a duration in '
                            f'{", ".join(DURATIONS_NS)}, like "{entry.default}"')
        return int(number * DURATIONS_NS[unit])
    if entry.unit == "count":
        if unit or number != int(number):
            raise UserError(f'{where} {entry.name}: "{text}" is not a whole number, like "{entry.default}"')
        return int(number)
    if unit and unit.lower() not in AMOUNTS:
        raise UserError(f'{where} {entry.name}: "{text}" has the wrong unit; write an amount without one, like "{entry.default}"')
    return parse_units(number)


@dataclass(frozen=True)
class Policy:
    """A validated policy: values as written, by name, and its version."""

    values: Mapping[str, str] = field(default_factory=dict)
    version: int = 1

    def __post_init__(self) -> None:
        compiled = compile_policy(self)
        if compiled["drawdown_reduce"][0] > compiled["drawdown_halt"][0]:
            raise UserError("policy drawdown_reduce is above drawdown_halt; sizes are halved before trading halts")

    def written(self, name: str) -> str:
        """The value of a key as it was written, or its default."""
        return str(self.values.get(name, _BY_NAME[name].default))

    def to_yaml(self) -> str:
        """All keys, with defaults filled in."""
        return yaml.safe_dump({"version": self.version, **{e.name: self.written(e.name) for e in ENTRIES}}, sort_keys=False)

    @property
    def digest(self) -> str:
        """Hash of what the desk sees: two policies that mean the same have the same."""
        return blake3(compile_policy(self).tobytes()).hexdigest()[:16]


def compile_policy(policy: Policy) -> npt.NDArray[Any]:
    """The policy as one record of POLICY_DTYPE, in an array of length 1."""
    out = np.zeros(1, POLICY_DTYPE)
    out["version"] = policy.version
    for entry in ENTRIES:
        value = parse_value(entry, policy.written(entry.name), "policy")
        low, high = (parse_value(entry, bound, "policy") for bound in (entry.low, entry.high))
        if not low <= value <= high:
            raise UserError(f'policy {entry.name}: "{policy.written(entry.name)}" is outside {entry.low} to {entry.high}')
        out[entry.name] = value
    return out


def parse_policy(document: object, where: str = "policy") -> Policy:
    """A policy from a mapping (a YAML section); UserError for unknown keys, wrong units, values out of bounds."""
    if document is None:
        return Policy()
    if not isinstance(document, Mapping):
        raise UserError(f"{where} is not a mapping of limits to values")
    values = dict(document)
    version = values.pop("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f'{where} version: "{version}" is not a whole number from 1')
    for name in values:
        if name not in _BY_NAME:
            raise unknown(f"{where} key", str(name), _BY_NAME)
    return Policy({str(k): str(v) for k, v in values.items()}, version)


def reference() -> str:
    """The policy reference as a Markdown table."""
    lines = ["| key | unit | default | from | to | meaning |", "|---|---|---|---|---|---|"]
    lines += [f"| `{e.name}` | {e.unit} | {e.default} | {e.low} | {e.high} | {e.doc} |" for e in ENTRIES]
    return "\n".join(lines)


__all__ = ["ENTRIES", "POLICY_DTYPE", "UNITS", "Entry", "Policy", "compile_policy", "parse_policy", "parse_value", "reference"]
