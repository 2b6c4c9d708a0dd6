"""What the gate's reasons, the quality step's reasons and the causes of orders mean, in plain words for the reader of a report."""

REFUSALS: dict[str, str] = {
    "trading_state": "Trading was disabled, reducing or halted at that moment, so nothing new was let through.",
    "conflict": "Another strategy held, or wanted, the opposite in the same symbol.",
    "position_state": "Nothing to do: an entry where the strategy already held or had asked, or an exit from nothing.",
    "stale_price": "The last price was too old to decide on.",
    "drawdown": "The account had lost too much from its peak.",
    "daily_loss": "The loss since the UTC day began had reached its limit: no entries for the rest of the day.",
    "weekly_loss": "The loss since Monday had reached its limit: no entries for the rest of the week.",
    "daily_trades": "As many entries as are allowed in a UTC day had been made.",
    "cooldown": "The symbol was resting after a loss in it.",
    "open_positions": "As many positions as are allowed were open.",
    "open_orders": "As many orders as are allowed were open.",
    "lot": "The size came out below one lot.",
    "notional_min": "The order would have been smaller than the smallest that is allowed.",
    "position_risk": "Too much of the equity would have been at risk to the stop.",
    "position_notional": "The position would have been too large a part of the equity.",
    "exposure": "All positions together would have been too large for the equity.",
    "heat": "Too much would have been lost if every stop were hit; a position without a stop counts whole.",
    "cash": "There was not enough cash, or buying power, for it.",
    "validation": "The signal validator refused it: penstock explain tells which of its layers, and on what.",
}

REJECTED: dict[str, str] = {
    "duplicate": "A trade id that had been seen already.",
    "out_of_order": "Earlier than a row before it.",
    "not_positive": "A price or size of zero or less.",
    "not_finite": "A price or size that is not a number.",
    "outlier": "Far outside the range of the prices before it, and not confirmed by the next.",
    "crossed": "A bid above the ask.",
    "suspicious": "Marked as bad by the recording.",
    "empty": "A quote without either side.",
    "inconsistent": "Open, high, low and close contradict each other.",
}
