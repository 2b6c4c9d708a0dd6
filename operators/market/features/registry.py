"""The register of features: what each is called, takes, gives and how long it warms up, and the kernel that computes
it.

A feature is declared once, by `@feature(...)` over its kernel; the column, the command's listing, the docs and the
tests follow from that. One kernel may serve several features, told apart by the `fixed` numbers that follow the
parameters in `p`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from schemas.errors import UserError, unknown

Kernel = Callable[..., None]
"""kernel(code: int32[:], b: float64[:, ::1], p: float64[::1], state: float64[:, ::1], out: float64[:, ::1]).

Goes over `code` in order: `b[column, i]` is the bar, `state[code[i]]` its symbol's row (zeros at first), `out[k, i]`
gets output k, NaN while it warms up. Nothing else may be read or written.
"""
Numbers = tuple[float, ...]

WINDOW_MAX = 10_000
"""Longest window in bars: a week of minutes. It bounds the state of a symbol."""


@dataclass(frozen=True)
class Param:
    """A number in a feature's brackets, with its bounds (both allowed)."""

    name: str
    default: float
    low: float
    high: float
    whole: bool = True

    def check(self, feature: str, text: str) -> float:
        """The number that `text` says; UserError where it is none or out of bounds."""
        kind = "a whole number" if self.whole else "a number"
        bounds = f"{kind} from {self.low:g} to {self.high:g}"
        try:
            value = float(text)
        except ValueError:
            raise UserError(f'feature {feature}: {self.name} "{text}" is not a number; give {bounds}') from None
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            raise UserError(f"feature {feature}: {self.name} {text} is out of bounds; give {bounds}")
        return value


def window(default: int, name: str = "length", low: int = 1) -> Param:
    """A window length in bars."""
    return Param(name, default, low, WINDOW_MAX)


def real(name: str, default: float, low: float, high: float) -> Param:
    """A parameter that need not be whole."""
    return Param(name, default, low, high, whole=False)


@dataclass(frozen=True)
class Feature:
    """One declared feature.

    warm_up: bars before the first value of each output. state: columns of a symbol's state row. windowed: the value
    depends on a bounded number of bars alone (None: it does not), namely that many before the current one.
    """

    name: str
    family: str
    params: tuple[Param, ...]
    outputs: tuple[str, ...]
    warm_up: Callable[[Numbers], tuple[int, ...]]
    state: Callable[[Numbers], int]
    fixed: Numbers
    doc: str
    formula: str
    source: str
    rising: tuple[str, ...]
    windowed: Callable[[Numbers], int] | None
    kernel: Kernel

    @property
    def defaults(self) -> Numbers:
        return tuple(p.default for p in self.params)

    def signature(self, values: Numbers | None = None) -> str:
        """`macd(12,26,9)`; a feature without parameters is its bare name."""
        if not self.params:
            return self.name
        return f"{self.name}({','.join(f'{v:g}' for v in (self.defaults if values is None else values))})"

    def columns(self, values: Numbers | None = None) -> tuple[str, ...]:
        """The names of its columns, one an output."""
        head = self.signature(values)
        return tuple(f"{head}.{output}" if output else head for output in self.outputs)


@dataclass(frozen=True)
class Request:
    """One column asked for: `text` as it was written, of which feature, with which numbers, which of its outputs."""

    text: str
    feature: Feature
    values: Numbers
    output: int

    @property
    def key(self) -> tuple[str, Numbers]:
        """What has to be computed; requests with the same key share it."""
        return self.feature.name, self.values


FEATURES: dict[str, Feature] = {}


def feature(
    name: str, family: str, doc: str, *, formula: str, source: str, params: tuple[Param, ...] = (),
    outputs: tuple[str, ...] = ("",), warm_up: Callable[..., int | tuple[int, ...]] = lambda *_: 0,
    state: Callable[..., int] = lambda *_: 1, fixed: Numbers = (), rising: tuple[str, ...] = (),
    windowed: Callable[..., int] | None = None,
) -> Callable[[Kernel], Kernel]:
    """Declare a feature over its kernel. `warm_up`, `state` and `windowed` take the parameters, whole ones as int, one
    by one.

    `rising` names parameters of which each must be larger than the one before.
    """

    def typed(values: Numbers) -> list[float]:
        return [int(v) if p.whole else v for p, v in zip(params, values, strict=True)]

    def bars(values: Numbers) -> tuple[int, ...]:
        found = warm_up(*typed(values))
        return found if isinstance(found, tuple) else (found,) * len(outputs)

    def declare(kernel: Kernel) -> Kernel:
        assert name not in FEATURES, name
        FEATURES[name] = Feature(
            name, family, params, outputs, bars, lambda values: max(1, state(*typed(values))), fixed, doc, formula,
            source, rising, None if windowed is None else lambda values: windowed(*typed(values)), kernel,
        )
        return kernel

    return declare


_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z_0-9]*)\s*(?:\(([^()]*)\))?\s*(?:\.\s*([A-Za-z_0-9]+))?\s*")


def _parse(text: str) -> tuple[Feature, Numbers, str | None]:
    match = _NAME.fullmatch(text)
    if match is None:
        raise UserError(f'feature "{text}" cannot be read; write a name such as rsi(14) or macd(12,26,9).signal')
    name, inside, output = match.groups()
    found = FEATURES.get(name)
    if found is None:
        raise unknown("feature", name, FEATURES)
    given = [part.strip() for part in inside.split(",")] if inside and inside.strip() else []
    if len(given) > len(found.params):
        takes = f"{len(found.params)} ({', '.join(p.name for p in found.params)})" if found.params else "none"
        raise UserError(
            f'feature "{text}" has {len(given)} parameters, {name} takes {takes}; write {found.columns()[0]}')
    numbers = [p.check(f'"{text}"', part) for p, part in zip(found.params, given, strict=False)]
    values = (*numbers, *found.defaults[len(numbers):])
    by_name = dict(zip((p.name for p in found.params), values, strict=True))
    for small, large in zip(found.rising, found.rising[1:], strict=False):
        if by_name[small] >= by_name[large]:
            raise UserError(f'feature "{text}": {small} {by_name[small]:g} must be below {large} {by_name[large]:g}')
    if output is not None and output not in found.outputs:
        if found.outputs == ("",):
            raise UserError(f'feature "{text}": {name} has one output; write {found.signature(values)}')
        raise unknown(f"output of {name}", output, found.outputs)
    return found, values, output


def parse(text: str) -> Request:
    """The one column that `text` names; UserError where it names none, or a feature of several outputs without saying
    which.
    """
    found, values, output = _parse(text)
    if output is None and found.outputs != ("",):
        raise UserError(f'feature "{text}" has outputs {", ".join(found.outputs)}; write {found.columns(values)[0]}')
    return Request(text, found, values, found.outputs.index(output or ""))


def expand(texts: Iterable[str]) -> tuple[Request, ...]:
    """The columns that the texts name; a feature of several outputs, named without one, gives them all. Repeats are
    dropped.
    """
    requests: dict[str, Request] = {}
    for text in texts:
        found, values, output = _parse(text)
        if output is None and found.outputs != ("",):
            for k, each in enumerate(found.outputs):
                column = f"{text.strip()}.{each}"
                requests.setdefault(column, Request(column, found, values, k))
        else:
            requests.setdefault(text, Request(text, found, values, found.outputs.index(output or "")))
    return tuple(requests.values())


def describe(name: str) -> dict[str, Any]:
    """All there is to say about a feature, as plain values; `name` may carry parameters or an output."""
    found, values, _ = _parse(name)
    return {
        "name": found.name, "family": found.family, "doc": found.doc, "formula": found.formula, "source": found.source,
        "columns": list(found.columns(values)), "outputs": [o for o in found.outputs if o],
        "warm_up_bars": dict(zip(found.columns(values), found.warm_up(values), strict=True)),
        "params": [
            {"name": p.name, "default": int(p.default) if p.whole else p.default, "min": p.low, "max": p.high,
             "type": "int" if p.whole else "float"} for p in found.params
        ],
    }


def catalogue() -> list[dict[str, Any]]:
    """`describe` of every feature, in the order of the families."""
    return [describe(name) for name in FEATURES]
