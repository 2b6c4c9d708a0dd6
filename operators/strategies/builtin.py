"""The built-in strategies, written in the rule language like anyone's.

They are textbook rules to start from and to compare with, not advice; the source of each is in its description.
"""

from functools import cache

from operators.strategies.documents import parse_strategy
from operators.strategies.rules import StrategySpec
from operators.strategies.validation import Known, registry
from schemas.errors import unknown

BUILTIN_YAML: dict[str, str] = {
    "bollinger_bounce": """
name: bollinger_bounce
description: Fade a close outside the 20-bar, two-sigma band once it is back inside; out at the middle (Bollinger 2001).
timeframe: 1m
side: both
entry:
  long: crosses_above(close, bollinger(20,2).lower)
  short: crosses_below(close, bollinger(20,2).upper)
exit:
  long: close >= bollinger(20,2).middle
  short: close <= bollinger(20,2).middle
stop: {distance: 2 * atr(14)}
hold_bars: 120
""",
    "rsi_mean_reversion": """
name: rsi_mean_reversion
description: Buy when the 14-bar RSI is below 30, out above 70 or at the target (Wilder 1978).
timeframe: 1m
side: long
entry: rsi(14) < 30
exit: rsi(14) > 70
stop: {distance: 2 * atr(14)}
target: {distance: 3 * atr(14)}
cooldown_bars: 5
""",
    "breakout_momentum": """
name: breakout_momentum
description: Buy a close above the 20-bar high on 1.5 times the usual volume; trail 1.5 ATR, out below the 10-bar low
  (after Donchian's channel rule).
timeframe: 1m
side: long
entry: close > donchian(20).upper and volume > 1.5 * volume_sma(20)
exit: close < donchian(10).lower
trail: {distance: 1.5 * atr(14)}
""",
    "ema_cross": """
name: ema_cross
description: Long while the 10-bar EMA is above the 30-bar EMA, short while below, always from the crossing on.
timeframe: 1m
side: both
entry:
  long: crosses_above(ema(10), ema(30))
  short: crosses_below(ema(10), ema(30))
""",
    "momentum": """
name: momentum
description: Follow a rise of the last 60 bars while the trend is strong (ADX) and the fast average agrees
  (time-series momentum, Moskowitz, Ooi, Pedersen 2012).
timeframe: 1m
side: both
entry:
  long: roc(60) > 0 and adx(14).adx > 25 and crosses_above(close, ema(20))
  short: roc(60) < 0 and adx(14).adx > 25 and crosses_below(close, ema(20))
exit:
  long: roc(60) < 0
  short: roc(60) > 0
stop: {distance: 2.5 * atr(14)}
hold_bars: 240
""",
}
BUILTINS = tuple(BUILTIN_YAML)
"""Their names."""


@cache
def builtin(name: str, known: Known = registry) -> StrategySpec:
    """The built-in strategy of this name; UserError with the nearest where there is none."""
    if name not in BUILTIN_YAML:
        raise unknown("strategy", name, BUILTIN_YAML)
    return parse_strategy(BUILTIN_YAML[name], f"built-in {name}", known)
