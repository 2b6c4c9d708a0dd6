"""A process that uses a registry: it kills itself with -9 when it comes to a step, or does its share of many changes.

`python -m tests.registry_child FOLDER kill STEP SEED` or `… FOLDER work SEED TIMES`.
"""

import os
import random
import signal
import sys
from pathlib import Path

from research.learning.registry import Registry
from schemas.errors import UserError
from tests.registry_made import artefact

REGISTER = ("register_locked", "register_payload", "register_written", "register_renamed", "register_inserted", "register_committed")
PROMOTE = ("promote_locked", "promote_inserted", "promote_journalled", "promote_committed")
ROLLBACK = ("rollback_locked", "rollback_inserted", "rollback_journalled", "rollback_committed")


def killed(folder: Path, label: str, seed: int) -> None:
    """Register a version, make it active, or roll back: whatever comes to the step."""
    def step(at: str) -> None:
        if at == label:
            os.kill(os.getpid(), signal.SIGKILL)

    made = Registry(folder, step=step)
    if label in REGISTER:
        made.register(artefact(seed))
    elif label in PROMOTE:
        made.promote("trees", made.versions("trees")[-1].version)
    else:
        made.rollback("trees")


def work(folder: Path, seed: int, times: int) -> None:
    """Register, and make the new version or an earlier one active, in an order of chance, beside others who do the same."""
    chance = random.Random(seed)
    made = Registry(folder, busy_s=120)
    for k in range(times):
        version = made.register(artefact(1000 * seed + k))
        wanted = version if chance.random() < 0.7 else chance.randint(1, version)
        try:
            made.promote("trees", wanted)
        except UserError:  # it was active before, and another process made it RETIRED
            made.rollback("trees", to=wanted)


if __name__ == "__main__":
    if sys.argv[2] == "kill":
        killed(Path(sys.argv[1]), sys.argv[3], int(sys.argv[4]))
    else:
        work(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
