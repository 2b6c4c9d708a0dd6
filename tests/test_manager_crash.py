"""kill -9 at every step of a learning cycle: the version in use keeps serving, and the next look finishes the cycle, everything once."""

import subprocess
import sys
from pathlib import Path

import pytest

from research.learning.cycle import Cycles
from research.learning.governance import verify_certificates
from tests.learning_made import NAME, World, made, turned, until

STEPS = ("triggered", "training", "trained", "evaluated", "registering", "registered", "shadowing", "shadowed", "promoting")
REGISTRY_STEPS = ("register_renamed", "promote_inserted")
KILLED = -9


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose version 2 was promoted by a first cycle."""
    folder = tmp_path_factory.mktemp("before") / "models"
    world = World(folder, until(made(4500, flip_at=1500), 1500))
    world.first()
    assert world.manager().once()["status"] == "promoted"
    return folder


def copied(before: Path, target: Path) -> Path:
    import shutil
    shutil.copytree(before, target)
    return target


@pytest.mark.parametrize("step", [*STEPS, *REGISTRY_STEPS])
def test_killed_at_a_step(step: str, before: Path, tmp_path: Path) -> None:
    folder = copied(before, tmp_path / "models")
    child = subprocess.run([sys.executable, "-m", "tests.learning_made", str(folder), step], capture_output=True, text=True, timeout=300,
                           cwd=Path(__file__).parents[1])
    assert child.returncode == KILLED, child.stderr
    world = turned(folder)
    world.clock_ns += 10**9  # later than all that the child did
    live = world.registry.active_at(NAME, world.now())
    assert live == (3 if step == "promoting" else 2)
    assert world.registry.get(NAME, live).payload
    found = world.manager().once()
    assert (found["status"], found["cycle"], found["version"]) == ("promoted", 2, 3)
    assert [v.version for v in world.registry.versions(NAME)] == [1, 2, 3]
    assert [(e.action, e.version) for e in world.registry.history(NAME)] == [("shadow", 2), ("activate", 2), ("shadow", 3), ("activate", 3)]
    chain = verify_certificates(folder / "certificates.jsonl")
    assert chain["ok"] and chain["certificates"] == 2
    assert Cycles(folder, NAME).numbers() == [1, 2]
    assert not (Cycles(folder, NAME).folder(2) / "candidate").exists()


def test_not_killed_it_is_the_same(before: Path, tmp_path: Path) -> None:
    """What a killed cycle ends with is what one that ran through ends with."""
    whole, killed = copied(before, tmp_path / "a"), copied(before, tmp_path / "b")
    turned(whole).manager().once("by hand")
    child = subprocess.run([sys.executable, "-m", "tests.learning_made", str(killed), "trained"], capture_output=True, text=True, timeout=300,
                           cwd=Path(__file__).parents[1])
    assert child.returncode == KILLED, child.stderr
    turned(killed).manager().once()
    one, two = turned(whole).registry.get(NAME, 3), turned(killed).registry.get(NAME, 3)
    assert one.payload == two.payload and one.digest == two.digest
