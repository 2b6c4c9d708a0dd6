"""Measurements, printed and never asserted: `python -m bench` lists them, `python -m bench NAME [--json]` runs one.

Every figure comes with the peers' figures from the same run on the same input, since machines differ by half from day to
day and only ratios can be compared. The pipeline is single threaded, and so is all that it is measured against: the
variables that numerical libraries read are set here, before any of them is imported.
"""

import os

for _name in (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
):
    os.environ[_name] = "1"
