"""Artefacts and registries for the tests of the registry: small, and different for every seed."""

from pathlib import Path
from typing import Any

from research.learning.registry import Registry
from schemas.artefact import Artefact, Card
from schemas.config_models import LabelConfig

SECOND = 10**9
NOON = 1_767_268_800 * SECOND
"""2026-01-01T12:00."""


class Clock:
    """A wall clock that moves when it is told to."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def artefact(seed: int = 1, name: str = "trees", **about: Any) -> Artefact:
    """A model of a few hundred bytes that no other seed has."""
    card = Card(name, 0, "lightgbm", "classify", 60 * SECOND, ("rsi(14)", "ret(5)"), LabelConfig(), ((0.1, 0.2), (-1.0,)),
                ((0.5, 0.25, 0.25), (0.5, 0.5)), {"seed": seed, "parameters": {"num_leaves": 31}, **about})
    return Artefact(card, f"model {seed} ".encode() * 30)


def registry(folder: Path, versions: int = 3, clock: Clock | None = None, **rest: Any) -> Registry:
    """A registry with some versions of `trees`."""
    made = Registry(folder, clock=clock or Clock(), **rest)
    for k in range(versions):
        made.register(artefact(k + 1))
    return made
