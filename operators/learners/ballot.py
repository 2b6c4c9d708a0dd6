"""An ensemble at work: what its members say of the rows of a frame becomes votes, and the labels that are due move its weights.

Events are those of the tape: of a row first the versions that change, then the labels that it releases, then its vote.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from operators.learners.ensemble import FORGET, LEARN, PREDICT, Ensemble
from operators.learners.pending import Floats, Ints, Pending
from operators.learners.rows import Named, Voice, scored
from operators.learners.slots import Released
from schemas.tables import Rows
from schemas.tables_models import ACTIVE_ROLE, VOTES


class Ballot:
    """members: index of each among the active voices of its group. may_vote: whose forecast's label lets it. bars: in a horizon."""

    def __init__(self, named: Named, members: Sequence[int], may_vote: Sequence[bool], bars: int) -> None:
        self.named = named
        self._members = list(members)
        self._ensemble = Ensemble(named.config, len(members), np.array(may_vote, np.bool_))
        self._pending = Pending(bars, 1, 1)

    def step(self, voices: Sequence[Voice], had_said: Floats, regime: Ints, volatility: Floats, bars: Rows, released: Released,
             labels: Rows, switched: Sequence[tuple[int, int]], n_symbols: int) -> tuple[Rows, Rows, list[Floats]]:
        """Votes, scores of votes, and the columns that rules may name.

        voices: active ones of the group. had_said: (labels, voices), what they had said of the labels' bars. switched: (row, voice) of
        every change of version.
        """
        n, symbols = len(bars), bars["symbol"].astype(np.int64)
        say = np.column_stack([voices[j].say for j in self._members]) if n else np.empty((0, len(self._members)))
        forget = [(row, self._members.index(j)) for row, j in switched if j in self._members]
        forgotten = np.full((len(forget), len(self._members)), np.nan)
        for k, (_, member) in enumerate(forget):
            forgotten[k, member] = 0.5
        rows = np.concatenate([np.array([row for row, _ in forget], np.int64), released.row, np.arange(n)])
        kinds = np.concatenate([np.full(len(forget), FORGET), np.full(len(labels), LEARN), np.full(n, PREDICT)])
        place = np.concatenate([np.zeros(len(forget), np.int64), np.ones(len(labels), np.int64), np.full(n, 2)])
        order = np.lexsort((np.arange(len(rows)), place, rows))
        p = np.concatenate([forgotten, had_said[:, self._members], say])[order]
        up = np.concatenate([np.zeros(len(forget), np.int64), released.up, np.zeros(n, np.int64)])[order]
        moved = np.concatenate([np.zeros(len(forget) + len(labels)), volatility])[order]
        whose = np.concatenate([np.zeros(len(forget), np.int64), labels["symbol"].astype(np.int64), symbols])[order]
        made = self._ensemble.step(kinds[order], np.ascontiguousarray(p), up, moved, whose, n_symbols)
        votes = VOTES.empty(n)
        for column in ("ts_event_ns", "seq", "symbol", "interval_ns", "ts_open_ns"):
            votes[column] = bars[column]
        for column, values in made.items():
            votes[column] = values
        votes["model"], votes["volatility"] = self.named.code, volatility
        return votes, self._scores(made, bars, released, labels, regime, n_symbols), [
            made["p_up"].copy(), made["p_up"].copy(), made["direction"].astype(np.float64), made["confidence"].copy()]

    def _scores(self, made: dict[str, Any], bars: Rows, released: Released, labels: Rows, regime: Ints, n_symbols: int) -> Rows:
        floats, ints, found = self._pending.step(
            bars["symbol"].astype(np.int64), bars["seq"].copy(), np.ascontiguousarray(made["p_up"])[:, None],
            np.ascontiguousarray(made["direction"])[:, None], released.row, released.made_seq, n_symbols)
        keep = np.flatnonzero(found & np.isfinite(floats[:, 0]))
        return scored(self.named.code, ACTIVE_ROLE, "classify", labels[keep], floats[keep, 0], floats[keep, 0],
                      np.zeros(len(keep), np.int64), ints[keep, 0], regime[keep])

    def snapshot(self) -> Any:
        return {"ensemble": self._ensemble.snapshot(), "pending": self._pending.snapshot()}

    def restore(self, state: Any) -> None:
        self._ensemble.restore(state["ensemble"])
        self._pending.restore(state["pending"])
