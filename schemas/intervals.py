"""Intervals as people write them: `1s`, `15m`, `4h`, `1d`."""

import re

from schemas.errors import UserError

INTERVAL_UNITS_NS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86_400 * 10**9}
_INTERVAL = re.compile(r"^(\d+)([smhd])$")


def parse_interval(text: object, where: str = "interval") -> int:
    """`1m`, `15m`, `1h`, `1d` to ns; UserError where it is not one."""
    match = _INTERVAL.match(str(text))
    if not match or int(match[1]) < 1:
        raise UserError(f'{where}: "{text}" is not an interval; write it like 1s, 1m, 15m, 1h, 1d')
    return int(match[1]) * INTERVAL_UNITS_NS[match[2]]


def interval_text(interval_ns: int) -> str:
    """ns to `1m`, in the largest unit that divides it."""
    for unit in ("d", "h", "m", "s"):
        if interval_ns % INTERVAL_UNITS_NS[unit] == 0:
            return f"{interval_ns // INTERVAL_UNITS_NS[unit]}{unit}"
    return f"{interval_ns}ns"
