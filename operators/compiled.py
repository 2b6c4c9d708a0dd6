"""How inner loops are compiled: to machine code on first use, kept on disk, without fastmath, so that bits do not move.

`kernel` is called from Python; `inner` only from other compiled functions, which saves compiling its wrappers.
"""

from numba import njit

kernel = njit(cache=True, nogil=True, error_model="numpy")
inner = njit(cache=True, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
