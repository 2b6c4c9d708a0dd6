"""What flows: the tables, records, topics, policy, money, ids, codecs and DDL of Penstock.

Nothing in this room imports another room of the project, and nothing in it reads a clock, a random
number or the environment, but for `kernel_cache`, which says where compiled code is kept.
"""

import schemas.kernel_cache  # noqa: F401  (before Numba is first imported)
