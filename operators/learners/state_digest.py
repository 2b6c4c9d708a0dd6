"""A digest of a model's state, and the state in words: to say that two learners are the same without comparing pickles.

Equal states have equal digests whatever objects they were pickled from or into: floats count by their bits, dictionaries in their order
(River sums over it), attributes and sets whatever theirs, shared objects and cycles by the number of their first visit.
"""

import functools
import math
import struct
import types
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from blake3 import blake3
from river import base, compose, preprocessing, proba, rules


def _state_of(value: object, found: dict[str, Any]) -> dict[str, Any]:
    """The attributes that are state: not what a pipeline derives at first use, nor a distribution's generator, which only sampling draws
    from and which the operating system seeds, nor the memory addresses under which a set of rules keeps its rules."""
    if type(value) is compose.Pipeline:
        return {"steps": found["steps"]}
    if isinstance(value, proba.base.Distribution):
        return {name: each for name, each in found.items() if name != "_rng"}
    if isinstance(value, rules.AMRules):
        return {**found, "_rules": list(found["_rules"].values())}
    return found



def state_digest(model: object) -> str:
    """64 hex digits over the whole state of a model; TypeError for what has no state to speak of, such as an open generator."""
    return blake3(bytes(_Walk().of(model))).hexdigest()


class _Walk:
    """One walk over a graph of objects, without recursion: deep trees are no deeper for it. Every piece is written with its kind and its
    length, so two different graphs never give the same bytes."""

    def __init__(self) -> None:
        self._visits: dict[int, int] = {}
        self._kept: list[object] = []

    def of(self, root: object) -> bytearray:
        out = bytearray()
        waiting = [root]
        while waiting:
            waiting.extend(reversed(self._write(waiting.pop(), out)))
        return out

    def _write(self, value: Any, out: bytearray) -> list[Any]:
        """Write what `value` is; give what it holds, to be written next."""
        if value is None or type(value) in (bool, int, str, bytes):
            return _put(out, type(value).__name__, value if isinstance(value, bytes) else repr(value).encode())
        if type(value) is float:
            return _put(out, "float", struct.pack("<d", value))
        if type(value) is tuple:
            return _put(out, "tuple", len(value).to_bytes(8, "little"), value)
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
            return _put(out, "name", f"{value.__module__}.{value.__qualname__}".encode())
        seen = self._visits.get(id(value))
        if seen is not None:
            return _put(out, "seen", seen.to_bytes(8, "little"))
        self._visits[id(value)] = len(self._visits)
        self._kept.append(value)
        return self._container(value, out)

    def _container(self, value: Any, out: bytearray) -> list[Any]:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, np.ndarray) and value.dtype != object:
            return _put(out, name, repr((value.dtype.str, value.shape)).encode() + np.ascontiguousarray(value).tobytes())
        if isinstance(value, np.generic):
            return _put(out, name, value.dtype.str.encode() + value.tobytes())
        if isinstance(value, set | frozenset):
            return _put(out, name, b"".join(sorted(blake3(bytes(_Walk().of(item))).digest() for item in value)))
        if isinstance(value, Mapping):
            inner = [x for pair in value.items() for x in pair]
            return _put(out, name, len(inner).to_bytes(8, "little"), [*inner, *_attributes(value)])
        if isinstance(value, list | deque | np.ndarray):
            inner = list(value.ravel() if isinstance(value, np.ndarray) else value)
            size = value.maxlen if isinstance(value, deque) else getattr(value, "shape", None)
            return _put(out, name, len(inner).to_bytes(8, "little"), [size, *inner, *_attributes(value)])
        if isinstance(value, functools.partial):
            return _put(out, name, b"", (value.func, value.args, value.keywords))
        if isinstance(value, types.MethodType):
            return _put(out, "method", value.__func__.__qualname__.encode(), (value.__self__,))
        if type(value).__module__ == "random" or type(value).__name__ == "RandomState":
            return _put(out, name, b"", (value.getstate() if hasattr(value, "getstate") else value.get_state(legacy=True),))
        if hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            return _put(out, name, b"", _attributes(value))
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return _put(out, name, reduced.encode())
        parts = [reduced[1], *(list(part) if part is not None and k >= 1 else part for k, part in enumerate(reduced[2:]))]
        return _put(out, name, len(parts).to_bytes(8, "little"), parts)


def _put(out: bytearray, kind: str, body: bytes, inner: Iterable[Any] = ()) -> list[Any]:
    head = kind.encode()
    out += len(head).to_bytes(2, "little") + head + len(body).to_bytes(8, "little") + body
    return list(inner)


def _attributes(value: object) -> list[Any]:
    """Names and values of an object's attributes, by name; their number first."""
    found = dict(getattr(value, "__dict__", {}))
    for parent in type(value).__mro__:
        slots = parent.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                found[slot] = getattr(value, slot)
    found = _state_of(value, found)
    names = sorted(found)
    return [len(names), *(x for name in names for x in (name, found[name]))] if names else []


def steps_of(model: Any) -> list[Any]:
    """The steps of a pipeline, or the model alone."""
    return list(model.steps.values()) if isinstance(model, compose.Pipeline) else [model]


def describe_state(model: Any) -> dict[str, Any]:
    """What a model has learned, readable: of each step its class, and the means of a scaler, the weights of a linear model, the depth and
    leaves of a tree, the members of an ensemble. Plain values that JSON can say."""
    if isinstance(model, compose.Pipeline):
        return {"steps": [describe_state(step) for step in steps_of(model)]}
    about: dict[str, Any] = {"class": type(model).__name__}
    if isinstance(model, preprocessing.StandardScaler) and model.window_size is None:
        about["rows"] = max(model.counts.values(), default=0)
        about["means"] = {k: _number(v) for k, v in model.means.items()}
        about["deviations"] = {k: _number(math.sqrt(v) if v >= 0 else math.nan) for k, v in model.vars.items()}
    weights = getattr(model, "weights", None)
    if isinstance(weights, Mapping):
        about["weights"] = {str(k): _number(v) for k, v in weights.items()}
        about["intercept"] = _number(getattr(model, "intercept", 0.0))
    for name, attribute in (("depth", "height"), ("leaves", "n_leaves"), ("nodes", "n_nodes"), ("rules", "rules")):
        found = getattr(model, attribute, None)
        if isinstance(found, int | Mapping) and not isinstance(found, bool):
            about[name] = found if isinstance(found, int) else len(found)
    if getattr(model, "seed", None) is not None:
        about["seed"] = int(model.seed)
    if isinstance(model, base.Ensemble):
        about["members"] = [describe_state(each) for each in model]
    return about


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
