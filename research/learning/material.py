"""What a cycle works on: the data cut into training, evaluation and shadow, models at work on its rows, and the recipe to follow.

The cut is made once, when a cycle begins, and written down; later rows do not move it, and a cycle whose rows have changed is not gone on
with. No label of one part looks into the part after it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from operators.learners.boosted import LOADERS
from research.learning.baseline import Baseline
from research.learning.cycle import Cycle
from research.learning.dataset import Dataset
from research.learning.evaluation import Ints, Outcomes, daily_volatility_regimes
from research.learning.registry import Registry
from schemas.artefact import Artefact, Card
from schemas.config_learn import LearnConfig, duration_ns
from schemas.errors import PenstockError, UserError


@dataclass(frozen=True)
class Material:
    """What there is to learn from, and what the rules did on the same stretch (None: there are none)."""

    data: Dataset
    rules: Baseline | None


class Workbench:
    """The material of one model; `provide` is asked once per look."""

    def __init__(self, registry: Registry, name: str, learn: LearnConfig, provide: Callable[[Card], Material]) -> None:
        self.registry, self.name, self.learn = registry, name, learn
        self._provide = provide
        self._held: tuple[Card, Material] | None = None

    def renew(self) -> None:
        """Forget what was provided: there may be more by now."""
        self._held = None

    def given(self, card: Card) -> Material:
        """The material with the columns and the label of a card."""
        if self._held is None or not alike(self._held[0], card):
            self._held = (card, self._provide(card))
        return self._held[1]

    def recipe(self, active: int) -> Card:
        """The card whose recipe is followed: the active version's, else the latest's."""
        versions = self.registry.versions(self.name)
        return self.registry.get(self.name, active or versions[-1].version).card

    def cut(self, data: Dataset) -> dict[str, Any]:
        """Where the parts of the data end, in event time, by the shares of the configuration."""
        made = data.ts_made_ns
        last = len(data) - 1
        evaluate = int(len(data) * (1.0 - self.learn.evaluate_share - self.learn.shadow_share))
        shadow = int(len(data) * (1.0 - self.learn.shadow_share))
        cut: dict[str, Any] = {
            "from_ns": int(made[0]), "evaluate_ns": int(made[min(evaluate, last)]), "shadow_ns": int(made[min(shadow, last)]),
            "to_ns": int(data.ts_end_ns.max()), "rows": len(data), "content_hash": data.content_hash, "symbols": list(data.symbols)}
        if not cut["from_ns"] < cut["evaluate_ns"] < cut["shadow_ns"]:
            raise UserError(f"{len(data):,} rows of {self.name}: too few different times to train, evaluate and shadow on; give more data")
        return cut

    def parts(self, cycle: Cycle, card: Card) -> tuple[Dataset, Ints, Ints, Ints]:
        """The cycle's data, and the numbers of its rows to train on, to evaluate on, and of the stretch for shadow."""
        data = self.given(card).data
        cut = cycle.data
        data = data.take((data.ts_made_ns >= cut["from_ns"]) & (data.ts_end_ns <= cut["to_ns"]))
        if data.content_hash != cut["content_hash"]:
            raise PenstockError(f"cycle {cycle.number} of {self.name} began on other data ({cut['rows']:,} rows) than is there now "
                                f"({len(data):,} rows of the same stretch): it cannot go on")
        embargo_ns = duration_ns(self.learn.embargo, "learn embargo")
        made, end = data.ts_made_ns, data.ts_end_ns
        train = np.flatnonzero(end < cut["evaluate_ns"] - embargo_ns)
        evaluate = np.flatnonzero((made >= cut["evaluate_ns"]) & (end < cut["shadow_ns"] - embargo_ns))
        shadow = np.flatnonzero(made >= cut["shadow_ns"])
        for what, rows in (("train", train), ("evaluate", evaluate), ("shadow", shadow)):
            if not len(rows):
                raise UserError(f"no rows of {self.name} left to {what} on between the parts of the data; give more data")
        return data, train, evaluate, shadow

    def other(self, cycle: Cycle, card: Card, data: Dataset, rows: Ints) -> tuple[Outcomes | None, dict[str, Any] | None]:
        """The active version on those of the rows that its own training did not see, where it reads the same columns and foresees the
        same label, and they are enough to compare; and how many they were of how many, where there is an active version."""
        if not cycle.active:
            return None, None
        artefact = self.registry.get(self.name, cycle.active)
        seen_ns = int(artefact.card.about.get("data", {}).get("labels_to_ns", 0))
        unseen = rows[data.ts_made_ns[rows] > seen_ns]
        told = {"name": f"version {cycle.active}", "rows": len(unseen), "of": len(rows), "seen_to_ns": seen_ns}
        if not alike(artefact.card, card) or len(unseen) < min(len(rows), self.learn.limits.rows_min):
            return None, told
        return outcomes_of(data, artefact, unseen, f"version {cycle.active}"), told


def outcomes_of(data: Dataset, artefact: Artefact, rows: Ints, name: str) -> Outcomes:
    """What a model says of some rows beside what came true, with the regime of each."""
    score = LOADERS[artefact.card.model](artefact).predict(np.ascontiguousarray(data.x[rows])) if len(rows) else np.empty(0)
    return replace(data.outcomes(name, artefact.card.task, score, rows), regime=regimes_of(data)[rows])


def regimes_of(data: Dataset) -> Ints:
    """Per row, as the pipeline tells them."""
    return daily_volatility_regimes(data.price, data.symbol, data.interval_ns, len(data.symbols))


def alike(a: Card, b: Card) -> bool:
    """Whether two cards read the same columns and foresee the same."""
    return (a.interval_ns, a.features, a.label, a.task) == (b.interval_ns, b.features, b.label, b.task)
