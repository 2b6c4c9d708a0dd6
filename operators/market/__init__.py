"""Analytics: quality, bars and features. Columns of floats in compiled loops; no money."""
