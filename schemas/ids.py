"""Ids are functions of content: the same intent has the same id in every run, on every machine, after every crash.

An id is a uint64, sixteen hex digits outside. Names are hashed once (BLAKE3, first eight bytes); numbers are folded in
with the finaliser of SplitMix64 (Steele, Lea, Flood 2014), which is a bijection of 64 bits.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from numba import njit, uint64


def name_id(name: str) -> int:
    """The 64-bit id of a name."""
    return int.from_bytes(blake3(name.encode()).digest()[:8], "big")


def name_ids(names: Iterable[str]) -> npt.NDArray[np.uint64]:
    """uint64 ids of names, in order."""
    return np.array([name_id(n) for n in names], np.uint64)


@njit("uint64(uint64, uint64)", cache=True, inline="always")
def fold(seed: int, value: int) -> int:
    """Fold one more value into an id."""
    z = uint64(seed) ^ (uint64(value) + uint64(0x9E3779B97F4A7C15))
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return z ^ (z >> uint64(31))


def id_text(value: int) -> str:
    """An id as users see it: sixteen hex digits."""
    return f"{int(value):016x}"
