"""The whole system as one `for` loop. Read this first.

The Bytewax dataflow in `dataflows/backtest.py` does the same, spread over workers; both give the same rows, bit for bit.
"""

from collections.abc import Callable, Iterable

from operators.assembly import Plan, account_chain, market_chain
from schemas.frame import Frame


def rehearse(plan: Plan, frames: Iterable[Frame], collect: Callable[[Frame], None]) -> None:
    """Frames in tape order through the market's operators and the desk; `collect` gets each frame with all that was made."""
    market = market_chain(plan)   # quality → bars → features → learners → strategies
    account = account_chain(plan)  # size → gate → orders → paper venue → ledger → audit
    for frame in frames:
        collect(account.step(market.step(frame)))
