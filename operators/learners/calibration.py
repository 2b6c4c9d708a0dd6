"""Platt scaling that learns label by label: a member's probability p becomes sigmoid(slope * logit(p) + offset).

Kept: the order of a member's probabilities is never turned around (slope >= 0), and what was learned long ago counts for less, so
the state is five numbers a member whatever the tape.
"""

import math
from typing import Any

import numpy as np

from operators.compiled import inner

SLOPE, OFFSET, H_SLOPE, H_BOTH, H_OFFSET = range(5)
"""A member's row: the two parameters, then the discounted information of the labels (Hessian of the log loss)."""
NEW = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
"""A member that is taken at its word."""
LOGIT_MAX = 5.0
"""A probability beyond 0.0067 to 0.9933 counts as that: one label cannot throw the parameters far."""
SLOPE_DEVIATION = 0.5
OFFSET_DEVIATION = 0.02
"""The prior: slope from N(1, 0.5²), offset from N(0, 0.02²). The offset takes some ten thousand labels to move, since labels whose
horizons overlap, of symbols that rise and fall together, tell far less than their number: a looser one follows the trend of the last
days, and then every member votes with it."""
KEPT = 0.5 ** (1.0 / 200_000.0)
"""What a label still counts for after the next one: half after 200,000."""
A_SLOPE = 1.0 / SLOPE_DEVIATION**2
A_OFFSET = 1.0 / OFFSET_DEVIATION**2


@inner
def logit(p: float) -> float:
    """log(p / (1 - p)), bounded."""
    if p <= 0.0:
        return -LOGIT_MAX
    if p >= 1.0:
        return LOGIT_MAX
    return min(max(math.log(p / (1.0 - p)), -LOGIT_MAX), LOGIT_MAX)


@inner
def calibrated(c: Any, p: float) -> float:
    """The probability that a member with row `c` means by p."""
    return 1.0 / (1.0 + math.exp(-(c[SLOPE] * logit(p) + c[OFFSET])))


@inner
def learn_calibration(c: Any, p: float, up: int) -> None:
    """One Newton step on the discounted log loss with the prior (Platt 1999; the recursion is that of Spiegelhalter and Lauritzen 1990,
    with forgetting): what the prior lost to forgetting pulls the parameters back to it. Below a slope of 0 the step ends on the
    nearest point of the quadratic with slope 0."""
    x = logit(p)
    q = calibrated(c, p)
    h = q * (1.0 - q)
    c[H_SLOPE] = KEPT * c[H_SLOPE] + h * x * x
    c[H_BOTH] = KEPT * c[H_BOTH] + h * x
    c[H_OFFSET] = KEPT * c[H_OFFSET] + h
    g_slope = x * (up - q) - (1.0 - KEPT) * A_SLOPE * (c[SLOPE] - 1.0)
    g_offset = (up - q) - (1.0 - KEPT) * A_OFFSET * c[OFFSET]
    aa = c[H_SLOPE] + A_SLOPE
    bb = c[H_OFFSET] + A_OFFSET
    ab = c[H_BOTH]
    determinant = aa * bb - ab * ab
    c[SLOPE] += (bb * g_slope - ab * g_offset) / determinant
    c[OFFSET] += (aa * g_offset - ab * g_slope) / determinant
    if c[SLOPE] < 0.0:
        c[OFFSET] += ab / bb * c[SLOPE]
        c[SLOPE] = 0.0
