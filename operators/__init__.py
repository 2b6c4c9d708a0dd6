"""What thinks: pure state machines over rows. No engine, no I/O, no clock, no randomness, no thread enters this room.

An operator processes the rows of a frame in order and keeps its state in plain arrays; the cut into frames does not
matter, bit for bit. `operators.protocol` says what an operator is; `operators.registry` lists those that the laws test.
"""

import schemas.kernel_cache  # noqa: F401  (before Numba is first imported)
