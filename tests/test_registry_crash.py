"""kill -9 at every step of a change: the registry opens, the version before serves, nothing half is listed, and a second attempt succeeds.

By default a few seeds a step; `PENSTOCK_CRASH_SEEDS=50 python -m pytest -q tests/test_registry_crash.py` runs fifty. Several processes
that write at the same time: numbers without gaps, one active version after every event.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from research.learning.registry import Registry
from research.learning.registry_events import standing
from research.learning.registry_files import Journal, VersionFiles
from research.learning.registry_repair import repair
from tests.registry_child import PROMOTE, REGISTER, ROLLBACK
from tests.registry_made import artefact

ROOT = Path(__file__).parents[1]
SEEDS = int(os.environ.get("PENSTOCK_CRASH_SEEDS", "3"))


def child(*args: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "tests.registry_child", *map(str, args)], cwd=ROOT, capture_output=True, text=True)


def sound(folder: Path) -> Registry:
    """A registry of which everything that is listed can be had, and whose journal and folders agree with it once something is written."""
    made = Registry(folder)
    for v in made.versions("trees"):
        assert made.get("trees", v.version).digest == v.digest
    return made


@pytest.mark.parametrize("label", [*REGISTER, *PROMOTE, *ROLLBACK])
def test_killed_at_a_step(label: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: _one(label, seed, tmp_path / str(seed)), range(SEEDS)))


def _one(label: str, seed: int, folder: Path) -> None:
    chance = random.Random(f"{label} {seed}")
    made = Registry(folder)
    n = chance.randint(3, 6)
    for k in range(n):
        made.register(artefact(k + 1))
    for version in range(1, chance.randint(3, n)):
        made.promote("trees", version)
    before, versions = made.history("trees"), made.versions("trees")
    serving = made.resolve("trees")
    done = child(folder, "kill", label, 100 + seed)
    assert done.returncode == -signal.SIGKILL, done.stderr
    committed = label.endswith("_committed")
    again = sound(folder)
    if label in REGISTER:
        assert len(again.versions("trees")) == len(versions) + committed
        assert again.versions("trees")[: len(versions)] == versions and again.history("trees") == before
    else:
        now = again.history("trees")
        assert [v.version for v in again.versions("trees")] == [v.version for v in versions]
        assert now[: len(before)] == before and len(now) == len(before) + committed
    if not committed:
        assert again.resolve("trees") == serving
        assert again.artefacts().get(_id(), serving).payload == artefact(serving).payload
    # a second attempt succeeds, whatever the first one left behind
    if label in REGISTER:
        assert again.register(artefact(100 + seed)) == len(versions) + committed + 1
    elif label in PROMOTE:
        assert again.promote("trees", n).version == n
    elif not committed:
        assert again.rollback("trees").version == serving - 1
    assert again.promote("trees", again.register(artefact(500))).number == len(Journal(folder).events())
    final = sound(folder)
    assert VersionFiles(folder).found() == [("trees", v.version) for v in final.versions("trees")]
    assert sorted(e.number for e in final.history("trees")) == [e.number for e in Journal(folder).events()]
    # and what the files say alone is the same registry
    (folder / "registry.sqlite3").unlink()
    assert repair(folder).trouble == ()
    assert sound(folder).history("trees") == final.history("trees")


def _id() -> int:
    from schemas.ids import name_id
    return name_id("trees")


@pytest.mark.parametrize("label", ["register_payload", "register_written", "register_renamed", "register_inserted"])
def test_killed_at_the_first_version_there_is_none(label: str, tmp_path: Path) -> None:
    assert child(tmp_path, "kill", label, 1).returncode == -signal.SIGKILL
    made = Registry(tmp_path)
    assert made.names() == []
    assert made.register(artefact(1)) == 1
    assert made.get("trees", 1).payload == artefact(1).payload


def test_what_a_kill_left_over_is_put_aside_and_not_deleted(tmp_path: Path) -> None:
    Registry(tmp_path).register(artefact(1))
    child(tmp_path, "kill", "register_renamed", 7)
    made = Registry(tmp_path)
    assert len(made.versions("trees")) == 1 and (tmp_path / "trees" / "00000002").exists()
    assert made.register(artefact(8)) == 2 and made.get("trees", 2).payload == artefact(8).payload
    left, = (tmp_path / ".lost").iterdir()
    assert (left / "model.bin").read_bytes() == artefact(7).payload


def test_four_processes_at_once(tmp_path: Path) -> None:
    times, workers = 50, 4
    made = [subprocess.Popen([sys.executable, "-m", "tests.registry_child", str(tmp_path), "work", str(seed), str(times)], cwd=ROOT,
                             stderr=subprocess.PIPE, text=True) for seed in range(workers)]
    for process in made:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    found = sound(tmp_path)
    assert [v.version for v in found.versions("trees")] == list(range(1, workers * times + 1))
    payloads = {found.get("trees", v).payload for v in range(1, workers * times + 1)}
    assert len(payloads) == workers * times  # each artefact once
    events = found.history("trees")
    assert [e.number for e in events] == list(range(1, len(events) + 1)) and len(events) >= workers * times - 10
    assert all(a.effective_ns < b.effective_ns for a, b in itertools.pairwise(events))
    for k in range(1, len(events) + 1):
        at = standing(events[:k])
        states = [at.state(v) for v in range(1, workers * times + 1)]
        assert states.count("ACTIVE") == 1 and states[events[k - 1].version - 1] == "ACTIVE"
    assert Journal(tmp_path).events() == events
