"""State that grows with the symbols: arrays indexed by symbol code."""

from typing import Any

import numpy as np
import numpy.typing as npt


def grown(array: npt.NDArray[Any], n: int, fill: Any = 0) -> npt.NDArray[Any]:
    """`array` itself where it has `n` rows, else a copy with at least `n`, doubled, the new rows set to `fill`."""
    if len(array) >= n:
        return array
    out = np.full((max(n, 2 * len(array)), *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out
