"""A registry whose database is lost or damaged says so and what to do, and is made again from its files without losing an event."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from research.learning.registry import Registry
from research.learning.registry_files import Journal
from research.learning.registry_repair import repair
from schemas.errors import PenstockError, UserError
from tests.registry_made import NOON, SECOND, Clock, artefact, registry


def lived(folder: Path) -> Registry:
    """A registry that has seen everything."""
    clock = Clock()
    made = registry(folder, 4, clock)
    made.register(artefact(1, "other"), tag="exp1", metrics={"auc": 0.6})
    made.promote("trees", 1, reason="first", actor="ann")
    made.promote("trees", 2)
    made.shadow("trees", 3)
    made.rollback("trees")
    made.promote("trees", 4, NOON + 3600 * SECOND)
    made.promote("other", 1)
    return made


def says(made: Registry) -> object:
    """All that it knows, times of registration aside."""
    return [(n, [(v.version, v.digest, v.state, v.tag, v.parent, v.metrics, v.pruned) for v in made.versions(n, NOON + 9)], made.history(n))
            for n in made.names()]


def page_overwritten(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(bytes(data))


def another_database(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE x (y)")
    db.close()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "not a database": lambda path: path.write_bytes(b"not a database " * 500),
    "page overwritten": page_overwritten,
    "another database": another_database,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_lost_database_is_said_and_made_again(how: str, tmp_path: Path) -> None:
    before = says(lived(tmp_path))
    DAMAGE[how](tmp_path / "registry.sqlite3")
    made = Registry(tmp_path)
    for call in (made.names, lambda: made.promote("trees", 3), lambda: made.register(artefact(9))):
        with pytest.raises(PenstockError, match=r"registry.sqlite3.*penstock model repair"):
            call()
    found = repair(tmp_path)
    assert (found.rebuilt, found.versions, found.events, found.trouble) == (True, 5, 6, ())
    assert bool(found.put_aside) == (how != "missing") and (not found.put_aside or Path(found.put_aside).exists())
    assert says(Registry(tmp_path)) == before
    assert Registry(tmp_path).register(artefact(9)) == 5
    assert repair(tmp_path).rebuilt is False


def test_what_sqlite_keeps_beside_a_damaged_file_is_not_applied_to_the_new_one(tmp_path: Path) -> None:
    made, copy = registry(tmp_path / "models", 3), tmp_path / "copy"
    other = sqlite3.connect(tmp_path / "models" / "registry.sqlite3")
    other.execute("SELECT count(*) FROM versions").fetchone()  # while it is open, changes stay in the log beside the file
    made.promote("trees", 1)
    made.promote("trees", 2)
    shutil.copytree(tmp_path / "models", copy)  # as a kill leaves it
    other.close()
    assert (copy / "registry.sqlite3-wal").stat().st_size > 0
    (copy / "registry.sqlite3").unlink()
    assert repair(copy).rebuilt is True
    assert (copy / "registry.sqlite3.1.damaged-wal").exists()
    assert says(Registry(copy)) == says(made)
    with sqlite3.connect(copy / "registry.sqlite3") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_an_older_copy_of_the_database_is_noticed(tmp_path: Path) -> None:
    made = registry(tmp_path, 2)
    made.promote("trees", 1)
    shutil.copy(tmp_path / "registry.sqlite3", tmp_path / "copy")
    made.promote("trees", 2)
    made.rollback("trees")
    made.register(artefact(3))
    before = says(made)
    (tmp_path / "copy").replace(tmp_path / "registry.sqlite3")
    with pytest.raises(PenstockError, match="older or was changed; penstock model repair"):
        Registry(tmp_path).promote("trees", 2)
    assert repair(tmp_path).rebuilt is True
    assert says(Registry(tmp_path)) == before


def test_a_whole_registry_is_verified_and_left_as_it_is(tmp_path: Path) -> None:
    made = lived(tmp_path)
    assert repair(tmp_path) == repair(tmp_path) and repair(tmp_path).rebuilt is False
    (tmp_path / "trees" / "00000003" / "model.bin").write_bytes(b"x")
    trouble, = repair(tmp_path).trouble
    assert "trees version 3" in trouble and "not what was registered" in trouble
    (tmp_path / "events.jsonl").write_text("{")
    assert repair(tmp_path).rebuilt is False
    assert len(Journal(tmp_path).events()) == 6 and says(Registry(tmp_path)) == says(made)


def test_a_version_damaged_together_with_the_database_stays_refused(tmp_path: Path) -> None:
    lived(tmp_path)
    (tmp_path / "registry.sqlite3").unlink()
    (tmp_path / "trees" / "00000003" / "model.bin").write_bytes(b"x")
    (tmp_path / "trees" / "00000004" / "card.json").write_text("{}")
    shutil.rmtree(tmp_path / "trees" / "00000002")
    found = repair(tmp_path)
    assert found.versions == 5 and [line.split(":")[0] for line in found.trouble] == [
        "trees version 2", "trees version 4", "trees version 2", "trees version 3", "trees version 4"]
    made = Registry(tmp_path)
    for version, why in ((2, "No such file"), (3, "not what was registered"), (4, "not the card of a model")):
        with pytest.raises(PenstockError, match=why):
            made.get("trees", version)
    assert made.get("trees", 1).payload == artefact(1).payload
    assert made.register(artefact(9)) == 5  # the number of a lost version is not given again


def test_pruned_versions_are_still_pruned_after_a_repair(tmp_path: Path) -> None:
    made = registry(tmp_path, 5)
    assert made.prune(2) == [("trees", 1), ("trees", 2), ("trees", 3)]
    before = says(made)
    (tmp_path / "registry.sqlite3").unlink()
    assert repair(tmp_path).trouble == ()
    assert says(Registry(tmp_path)) == before


def test_a_journal_that_contradicts_itself_is_not_believed(tmp_path: Path) -> None:
    lived(tmp_path)
    (tmp_path / "registry.sqlite3").unlink()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    (tmp_path / "events.jsonl").write_text("\n".join([*lines, json.dumps({**json.loads(lines[0]), "number": 7})]) + "\n")
    with pytest.raises(PenstockError, match=r"events.jsonl: its events contradict each other.*backup"):
        repair(tmp_path)
    (tmp_path / "events.jsonl").write_text("nonsense\n" + "\n".join(lines) + "\n")
    with pytest.raises(PenstockError, match=r"events.jsonl line 1: not an event"):
        repair(tmp_path)
    assert not (tmp_path / "registry.sqlite3").exists()


def test_where_there_is_no_registry_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no registry is there"):
        repair(tmp_path / "none")
    assert not (tmp_path / "none").exists()
