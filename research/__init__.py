"""Offline work on the same operators: the rehearsal loop, replays in a notebook, reports. Start with `rehearsal.py`."""

from typing import Any


def __getattr__(name: str) -> Any:
    # `from research import replay` gives the function; what it needs is imported on first use
    if name == "replay":
        from research.replaying import replay
        return replay
    raise AttributeError(name)
