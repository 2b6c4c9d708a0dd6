"""The desk as an operator: one per account, one writer for its money.

It reads trades, quotes, bars, funding, beats, control, signals and reports of a frame, and adds decisions, orders, fills, ledger,
positions, equity and audit. With the paper venue it fills the orders itself; with an external one it adds approvals, and reports are
what fills them. Output buffers are bounded and emptied as often as needed, so memory does not grow with the frame.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from operators.desk.approvals import FIRST, chain, sign
from operators.desk.audit import Audit
from operators.desk.reducer import reduce
from operators.desk.state import (
    APPROVED_N,
    DECISION_N,
    EQUITY_N,
    FILL_N,
    LEDGER_N,
    ORDER_N,
    ORDERS_BOUND,
    POSITION_N,
    Desk,
    Out,
    new_books,
    new_desk,
    new_symbols,
)
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.ids import name_id, name_ids
from schemas.money import parse_units
from schemas.policy import Policy
from schemas.rows import copied, opaque
from schemas.tables import BARS, BEATS, QUOTES, SIGNALS, TRADES, Rows, TableSpec
from schemas.tables_desk import AUDIT, CONTROL, DECISIONS, EQUITY, FILLS, FUNDING_RATES, LEDGER, ORDERS, POSITIONS
from schemas.tables_live import APPROVED, REPORTS

INPUTS = (TRADES, QUOTES, BARS, FUNDING_RATES, BEATS, CONTROL, SIGNALS, REPORTS)
AUDITED_INPUTS = (TRADES, QUOTES, BARS, FUNDING_RATES, CONTROL, SIGNALS, REPORTS)
OUTPUTS = ((DECISIONS, DECISION_N), (ORDERS, ORDER_N), (FILLS, FILL_N), (LEDGER, LEDGER_N), (POSITIONS, POSITION_N), (EQUITY, EQUITY_N),
           (APPROVED, APPROVED_N))
_PER_ROW = {"decisions": 1, "orders": 8, "fills": 4, "ledger": 12, "positions": 4, "equity": 1, "approved": 4}


class DeskOperator:
    """The money side of one account."""

    name = "desk"

    def __init__(self, policy: Policy, strategies: Sequence[str], weights: Sequence[float] | None = None, account: str = "paper",
                 external: bool = False) -> None:
        shares = [1.0 / max(len(strategies), 1)] * len(strategies) if weights is None else list(weights)
        units = np.array([parse_units(round(w, 8)) for w in shares], np.int64)
        self.account = account
        self.policy = policy
        self.strategies = tuple(strategies)
        self.desk: Desk = new_desk(name_id(account), policy, units, name_ids(strategies), external)
        self.external = external
        self.approved_head = FIRST
        self.symbols: tuple[str, ...] = ()
        self.audit = Audit()
        self._reserve = 0
        self._out: Out = self._buffers(1)

    def _buffers(self, reserve: int) -> Out:
        self._reserve = reserve
        sizes = {s.name: max(8192 if s is EQUITY else 1024, 3 * _PER_ROW[s.name] * reserve + 16) for s, _ in OUTPUTS}
        tables = [s.empty(sizes[s.name]) for s, _ in OUTPUTS]
        return Out._make([*tables, np.zeros(len(OUTPUTS), np.int64)])

    def _grow(self, symbols: tuple[str, ...]) -> None:
        if symbols[: len(self.symbols)] != self.symbols:
            raise ValueError("symbol codes of a frame do not extend those before")
        n, old = len(symbols), len(self.desk.symbols)
        if n > old:
            records = new_symbols(max(n, 2 * old))
            records[:old] = self.desk.symbols
            books = new_books(self.desk.books.shape[0], len(records))
            books[:, :old] = self.desk.books
            self.desk = self.desk._replace(symbols=records, books=books)
        ids = np.zeros(len(self.desk.symbols), np.uint64)
        ids[:n] = name_ids(symbols)
        self.desk = self.desk._replace(symbol_ids=ids)
        self.symbols = symbols
        # the worst that one row can cause: an exit for every open position, or all open orders of a symbol moving; late reports of an
        # external venue may open more positions than the policy lets through
        positions = min(ORDERS_BOUND if self.external else int(self.desk.policy["positions_max"][0]), self.desk.books.size)
        self._out = self._buffers(positions + 16 + 2 * self.desk.books.shape[0])

    def step(self, frame: Frame) -> Frame:
        """Add what the desk made of the frame's rows."""
        if frame.symbols is not self.symbols and frame.symbols != self.symbols:
            self._grow(frame.symbols)
        inputs = [frame.rows(spec) for spec in INPUTS]
        parts: dict[str, list[Rows]] = {spec.name: [] for spec, _ in OUTPUTS}
        at = np.zeros(len(INPUTS), np.int64)
        done = False
        while not done:
            self._out.n[:] = 0
            done = reduce(self.desk, self._out, *inputs, at, self._reserve)
            for k, (spec, _) in enumerate(OUTPUTS):
                used = int(self._out.n[k])
                if used:
                    # as opaque bytes: NumPy copies records field by field
                    parts[spec.name].append(opaque(self._out[k][:used]).copy())
        tables: dict[str, Rows] = {}
        for spec, _ in OUTPUTS:
            made = parts[spec.name]
            if made:
                tables[spec.name] = (made[0] if len(made) == 1 else np.concatenate(made)).view(spec.dtype)
        if APPROVED.name in tables:
            digests = chain(tables[APPROVED.name], self.approved_head, self.desk.symbol_ids, self.desk.strategy_ids)
            sign(tables[APPROVED.name], digests)
            self.approved_head = digests[-1]
        return frame.with_tables(**tables, **self._audit(frame, tables), account=copied(self.desk.account))

    def _audit(self, frame: Frame, tables: dict[str, Rows]) -> dict[str, Rows]:
        rows: list[Rows] = []
        specs: list[tuple[TableSpec, Rows]] = [(s, frame.tables[s.name]) for s in AUDITED_INPUTS if s.name in frame.tables]
        specs += [(s, tables[s.name]) for s, _ in OUTPUTS if s.name in tables]
        for spec, made in specs:
            blocks = self.audit.add(spec, made, self.desk.symbol_ids, self.desk.strategy_ids)
            if len(blocks):
                rows.append(blocks)
        if not rows:
            return {}
        merged = np.concatenate(rows)
        return {AUDIT.name: merged[np.lexsort((merged["block_no"], merged["stream"], merged["seq"]))]}

    @property
    def equity_units(self) -> int:
        """Equity at the last prices, units of 1e-8."""
        return int(self.desk.account["equity"][0])

    def snapshot(self) -> Any:
        """Everything that later rows depend on: of the orders those that are open, and of the ring what it holds."""
        d = self.desk
        slots = np.flatnonzero(d.orders["used"])
        return {"symbols": self.symbols, "account": d.account.copy(), "records": d.symbols.copy(), "books": d.books.copy(),
                "slots": slots, "orders": d.orders[slots], "done": d.done[: int(d.account["done_no"][0])].copy(),
                "audit": self.audit.snapshot(), "approved_head": self.approved_head}

    def restore(self, state: Any) -> None:
        """Put back what `snapshot` gave; UserError where it is of an account that traded at the other kind of venue."""
        if bool(state["account"]["external"][0]) != self.external:
            was, wanted = ("an external", "the paper") if not self.external else ("the paper", "an external")
            raise UserError(f"the saved state of account {self.account} is of {was} venue, and this run has {wanted} one; "
                            "give the run another state folder")
        self._grow(state["symbols"])
        orders, done = np.zeros_like(self.desk.orders), np.zeros_like(self.desk.done)
        orders[state["slots"]] = state["orders"]
        done[: len(state["done"])] = state["done"]
        self.desk = self.desk._replace(account=state["account"].copy(), symbols=state["records"].copy(), books=state["books"].copy(),
                                       orders=orders, done=done)
        self.approved_head = state["approved_head"]
        ids = np.zeros(len(self.desk.symbols), np.uint64)
        ids[: len(self.symbols)] = name_ids(self.symbols)
        self.desk = self.desk._replace(symbol_ids=ids)
        self.audit.restore(state["audit"])
