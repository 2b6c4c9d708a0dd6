"""Sizing: how much a strategy's signal is worth. One rule, one function; all give unsigned base units before lot rounding.

A size never exceeds the position cap of the strategy's share of equity; where no stop is given, a fixed fraction of it is
put in. Amounts are units of 1e-8.
"""

import math

from operators.compiled import inner
from operators.desk.state import Desk
from schemas.money import UNITS, div_units, mul_units

YEAR_S = 365.25 * 86_400


@inner
def by_risk(share: int, risk: int, price: int, stop: int, cap: int) -> int:
    """Fixed fractional sizing (Vince 1990): risk * share / |price - stop|, at most `cap`."""
    distance = max(abs(price - stop), 1)
    at_risk = mul_units(share, risk)
    if mul_units(cap, distance) <= at_risk:
        return cap
    return min(div_units(at_risk, distance), cap)


@inner
def by_fraction(share: int, fraction: int, price: int, cap: int) -> int:
    """A fixed fraction of the share, at most `cap`."""
    return min(div_units(mul_units(share, fraction), price), cap)


@inner
def by_volatility(share: int, target: int, var_rate: float, price: int, cap: int) -> int:
    """Volatility targeting (Moreira and Muir 2017): share * target / realised annual volatility, at most `cap`."""
    volatility = math.sqrt(var_rate * YEAR_S)
    if volatility <= 0.0:
        return 0
    fraction = int(min(target / volatility, 100.0 * UNITS))
    return by_fraction(share, fraction, price, cap)


@inner
def size(desk: Desk, symbol: int, strategy: int, price: int, stop: int, strength: float) -> int:
    """The quantity of an entry, a multiple of the lot; halved while the drawdown is past `drawdown_reduce`."""
    account = desk.account[0]
    policy = desk.policy[0]
    if account.equity <= 0 or price <= 0:
        return 0
    share = mul_units(account.equity, desk.weights[strategy])
    cap = div_units(mul_units(account.equity, policy.position_notional_max), price)
    if policy.volatility_target > 0:
        quantity = by_volatility(share, policy.volatility_target, desk.symbols[symbol].var_rate, price, cap)
    elif stop > 0:
        quantity = by_risk(share, policy.risk_per_trade, price, stop, cap)
    else:
        quantity = by_fraction(share, policy.notional_per_trade, price, cap)
    quantity = mul_units(quantity, int(min(abs(strength), 1.0) * UNITS))
    if account.peak - account.equity >= mul_units(account.peak, policy.drawdown_reduce):
        quantity //= 2
    return quantity - quantity % policy.lot
