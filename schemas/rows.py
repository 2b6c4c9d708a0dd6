"""Rows as opaque bytes: NumPy moves records field by field, and without fields up to sixteen times faster."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.tables import Rows


def opaque(rows: Rows) -> npt.NDArray[Any]:
    """The same memory as records without fields."""
    return rows.view(f"V{rows.dtype.itemsize}")


def copied(rows: Rows) -> Rows:
    """A copy of all."""
    return opaque(rows).copy().view(rows.dtype)


def picked(rows: Rows, at: Any) -> Rows:
    """A copy of the rows at these places, or of a mask."""
    found: Rows = opaque(rows)[at].view(rows.dtype)
    return found


def appended(parts: Sequence[Rows]) -> Rows:
    """Arrays of one table as one; the array itself where there is but one."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([opaque(part) for part in parts]).view(parts[0].dtype)
