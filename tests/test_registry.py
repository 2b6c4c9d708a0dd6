"""The model registry: numbers, states, events with a time, what is in force at a moment, and what is refused."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from research.learning.registry import Registry
from research.learning.registry_events import STATES, TRANSITIONS, diagram
from schemas.artefact import card_json
from schemas.errors import PenstockError, UserError
from schemas.ids import name_id
from schemas.tables_models import ACTIVATE, PROMOTION_ACTIONS, ROLLBACK, SHADOW
from tests.registry_made import NOON, SECOND, Clock, artefact, registry


def states(made: Registry, name: str = "trees") -> list[str]:
    return [v.state for v in made.versions(name)]


def test_versions_are_numbered_per_name_and_come_back_as_they_were(tmp_path: Path) -> None:
    made = registry(tmp_path / "models", 2)
    assert made.register(artefact(9, "other", metrics={"auc": 0.6}), tag="exp1", metrics={"accuracy": 0.53}) == 1
    assert made.register(artefact(3), parent=2) == 3
    assert made.names() == ["other", "trees"]
    again = Registry(tmp_path / "models")
    found = again.get("trees", 2)
    assert found.payload == artefact(2).payload and found.card.version == 2 and found.card.edges == artefact(2).card.edges
    assert found.digest == again.version("trees", 2).digest
    other = again.version("other", 1)
    assert (other.tag, dict(other.metrics), other.parent, other.state) == ("exp1", {"auc": 0.6, "accuracy": 0.53}, 0, "CANDIDATE")
    assert again.version("trees", 3).parent == 2
    assert again.get("other", 1).card.about["metrics"] == {"auc": 0.6, "accuracy": 0.53}
    assert again.artefacts().get(name_id("trees"), 2) == found


def test_the_digest_does_not_depend_on_when_or_where(tmp_path: Path) -> None:
    a, b = registry(tmp_path / "a", 1), registry(tmp_path / "b", 1, Clock(NOON + 5))
    assert a.version("trees", 1).digest == b.version("trees", 1).digest
    odd = artefact(1, "odd", importance={10: 1.0, 9: 2.0})  # keys that JSON makes text of
    a.register(odd)
    assert a.get("odd", 1).digest == a.version("odd", 1).digest


def test_a_registry_that_is_not_there_is_empty_and_is_not_made_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODELS", str(tmp_path / "by_variable"))
    made = Registry.open()
    assert made.names() == [] and not (tmp_path / "by_variable").exists()
    with pytest.raises(UserError, match="penstock model train"):
        made.versions("trees")
    assert Registry.open(tmp_path / "given").path == tmp_path / "given"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a folder"):
        Registry(tmp_path / "file")


def test_promote_shadow_retire_rollback(tmp_path: Path) -> None:
    clock = Clock()
    made = registry(tmp_path, 4, clock)
    made.promote("trees", 1, reason="first", actor="ann")
    clock.now += SECOND
    made.shadow("trees", 2)
    assert states(made) == ["ACTIVE", "SHADOW", "CANDIDATE", "CANDIDATE"]
    clock.now += SECOND
    made.shadow("trees", 3)
    assert states(made) == ["ACTIVE", "CANDIDATE", "SHADOW", "CANDIDATE"]
    made.promote("trees", 3)
    assert states(made) == ["RETIRED", "CANDIDATE", "ACTIVE", "CANDIDATE"]
    made.promote("trees", 4)
    assert made.rollback("trees").version == 3
    back = made.rollback("trees")  # not to 4, which was rolled back from
    assert (back.version, back.action) == (1, "rollback")
    with pytest.raises(UserError, match="no version was active before version 1"):
        made.rollback("trees")
    assert made.rollback("trees", to=4).version == 4
    made.retire("trees", 4)
    assert states(made) == ["RETIRED", "CANDIDATE", "RETIRED", "RETIRED"]
    assert made.active_at("trees", clock.now + SECOND) == 0
    assert made.rollback("trees").version == 1  # 4 was retired by name: nothing comes back to it
    first = made.history("trees")[0]
    assert (first.reason, first.actor, first.effective_ns, first.number) == ("first", "ann", NOON, 1)
    assert [e.number for e in made.history("trees")] == list(range(1, 11))


def test_at_a_moment(tmp_path: Path) -> None:
    clock = Clock()
    made = registry(tmp_path, 3, clock)
    made.promote("trees", 1)
    made.promote("trees", 2, NOON + 10 * SECOND)
    made.promote("trees", 3, NOON + 20 * SECOND)
    moments = [-1, 0, 10 * SECOND - 1, 10 * SECOND, 20 * SECOND - 1, 20 * SECOND, 99 * SECOND]
    assert [made.active_at("trees", NOON + t) for t in moments] == [0, 1, 1, 2, 2, 3, 3]
    assert states(made) == ["ACTIVE", "CANDIDATE", "CANDIDATE"]
    assert [v.state for v in made.versions("trees", NOON + 15 * SECOND)] == ["RETIRED", "ACTIVE", "CANDIDATE"]
    rows = made.promotions(["trees"], NOON + 15 * SECOND, NOON + 20 * SECOND)
    assert rows["version"].tolist() == [2] and rows["ts_event_ns"].tolist() == [NOON + 10 * SECOND]
    made.rollback("trees", NOON + 20 * SECOND)  # undoes what is yet to come, at its own moment
    assert [made.active_at("trees", NOON + t) for t in (19 * SECOND, 21 * SECOND)] == [2, 2]


def test_rows_of_promotions(tmp_path: Path) -> None:
    clock = Clock()
    made = registry(tmp_path, 3, clock)
    made.register(artefact(1, "other"))
    for k, change in enumerate((lambda: made.promote("trees", 1), lambda: made.shadow("trees", 2), lambda: made.promote("other", 1),
                                lambda: made.promote("trees", 3), lambda: made.rollback("trees"))):
        clock.now = NOON + k * SECOND
        change()
    rows = made.promotions(["trees", "other", "trees"])
    assert rows["ts_event_ns"].tolist() == [NOON + k * SECOND for k in range(5)]
    assert rows["action"].tolist() == [ACTIVATE, SHADOW, ACTIVATE, ACTIVATE, ROLLBACK]
    assert rows["version"].tolist() == [1, 2, 1, 3, 1]
    assert rows["model_id"].tolist() == [name_id(n) for n in ("trees", "trees", "other", "trees", "trees")]
    assert rows["digest"].tolist() == [made.get("trees" if i != 2 else "other", v).digest_id for i, v in enumerate((1, 2, 1, 3, 1))]
    assert set(rows["seq"].tolist()) == set(rows["symbol"].tolist()) == {-1}
    # what is in force as a stretch begins comes first: 3 is active, 2 in shadow
    assert made.promotions(["trees"], NOON + 4 * SECOND)["version"].tolist() == [2, 3, 1]
    assert len(made.promotions(["trees"], None, NOON)) == 0
    with pytest.raises(UserError, match='did you mean "trees"'):
        made.promotions(["treez"])


def test_what_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    """Every state with every action: done exactly where the table has it."""
    for state in STATES:
        for action in PROMOTION_ACTIONS:
            made = registry(tmp_path / f"{state}-{action}", 2)
            if state in ("ACTIVE", "RETIRED"):
                made.promote("trees", 1)
            if state == "SHADOW":
                made.shadow("trees", 1)
            if state == "RETIRED":
                made.promote("trees", 2)
            soon = NOON + SECOND
            ask = {"activate": made.promote, "shadow": made.shadow, "retire": made.retire,
                   "rollback": lambda name, v, at, made=made: made.rollback(name, at, to=v)}[action]
            before = made.history("trees")
            if (state, action) in TRANSITIONS:
                ask("trees", 1, soon)
                assert made.versions("trees", soon)[0].state == TRANSITIONS[state, action]
            else:
                with pytest.raises(UserError, match=f"version 1 is {state} and cannot"):
                    ask("trees", 1, soon)
                assert made.history("trees") == before


def test_the_diagram_in_the_docs_is_the_table() -> None:
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{diagram()}\n```" in page, f"put this into docs/models.md:\n{diagram()}"
    assert all(diagram().count(f"--> {b}: {what}") for (_, what), b in TRANSITIONS.items())


def test_the_past_stays_unless_backdated(tmp_path: Path) -> None:
    made = registry(tmp_path, 2)
    with pytest.raises(UserError, match=r"2026-01-01T11:59:59.* is in the past.*--backdate"):
        made.promote("trees", 1, NOON - SECOND)
    event = made.promote("trees", 1, NOON - SECOND, backdate=True)
    assert event.effective_ns < event.recorded_ns
    assert made.active_at("trees", NOON - SECOND) == 1
    with pytest.raises(UserError, match=r"a later event.*version 1 is RETIRED"):
        made.retire("trees", 1, NOON - 2 * SECOND, backdate=True)


def test_moments_differ_where_the_clock_stands_or_goes_back(tmp_path: Path) -> None:
    clock = Clock()
    made = registry(tmp_path, 4, clock)
    made.promote("trees", 1)
    made.promote("trees", 2)
    clock.now -= 3600 * SECOND
    made.promote("trees", 3)
    assert [e.effective_ns for e in made.history("trees")] == [NOON, NOON + 1, NOON + 2]
    made.promote("trees", 4, NOON + 2)
    assert made.active_at("trees", NOON + 3) == 4


def test_asked_again_nothing_is_added(tmp_path: Path) -> None:
    made = registry(tmp_path, 2)
    first = made.promote("trees", 1)
    assert made.promote("trees", 1) == first
    shadowed = made.shadow("trees", 2)
    assert made.shadow("trees", 2) == shadowed and len(made.history("trees")) == 2


def test_events_cannot_be_changed_in_the_file(tmp_path: Path) -> None:
    registry(tmp_path, 1).promote("trees", 1)
    db = sqlite3.connect(tmp_path / "registry.sqlite3")
    for statement in ("UPDATE events SET version = 2", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="events"):
            db.execute(statement)
    db.close()


@pytest.mark.parametrize(("file", "damage", "says"), [
    ("model.bin", lambda p: p.write_bytes(p.read_bytes()[:-1]), "not what was registered"),
    ("model.bin", lambda p: p.unlink(), "model.bin: No such file"),
    ("card.json", lambda p: p.write_text("{"), "card.json: not the card of a model"),
    ("card.json", lambda p: p.write_bytes(b"\xff\xfe"), "card.json: not text"),
    ("card.json", lambda p: p.write_text(p.read_text().replace("rsi(14)", "rsi(15)")), "not what was registered"),
    ("card.json", lambda p: p.write_text(p.read_text().replace('"format":1', '"format":2')), "written in format 2.*update penstock"),
])
def test_a_damaged_artefact_is_refused_and_the_old_one_stays(tmp_path: Path, file: str, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    made = registry(tmp_path, 2)
    made.promote("trees", 1)
    damage(tmp_path / "trees" / "00000002" / file)
    with pytest.raises(PenstockError, match=says) as told:
        made.get("trees", 2)
    assert str(tmp_path / "trees" / "00000002") in str(told.value)
    for change in (made.promote, made.shadow):
        with pytest.raises(PenstockError, match=says):
            change("trees", 2)
    assert states(made) == ["ACTIVE", "CANDIDATE"] and len(made.history("trees")) == 1
    assert made.get("trees", 1).payload == artefact(1).payload
    made.retire("trees", 2)  # taking a damaged one out of the way is not refused


def test_a_damaged_rollback_target_is_refused(tmp_path: Path) -> None:
    made = registry(tmp_path, 2)
    made.promote("trees", 1)
    made.promote("trees", 2)
    (tmp_path / "trees" / "00000001" / "model.bin").write_bytes(b"")
    with pytest.raises(PenstockError, match="not what was registered"):
        made.rollback("trees")
    assert states(made) == ["RETIRED", "ACTIVE"]


def test_what_does_not_exist_is_suggested(tmp_path: Path) -> None:
    made = registry(tmp_path, 3)
    made.register(artefact(4), tag="weekly")
    for call, says in (
        (lambda: made.get("tree", 1), 'unknown model in .*"tree"; did you mean "trees"'),
        (lambda: made.promote("trees", 7), "trees has no version 7; it has 1 to 4"),
        (lambda: made.promote("trees", 0), "trees has no version 0"),
        (lambda: made.resolve("trees", "weekl"), 'unknown tag of trees "weekl"; did you mean "weekly"'),
        (lambda: made.rollback("tres"), 'did you mean "trees"'),
        (lambda: made.rollback("trees"), "no version was active before; promote one"),
        (lambda: made.register(artefact(1, "../up")), "a name in the registry has"),
        (lambda: made.register(artefact(1), tag="a b"), 'tag "a b"'),
        (lambda: made.register(artefact(1), tag="12"), "not digits alone"),
        (lambda: made.register(artefact(1), parent=9), "parent 9"),
        (lambda: made.prune(0), "at least 1"),
    ):
        with pytest.raises(UserError, match=says):
            call()
    with pytest.raises(PenstockError, match="no model with id 0000000000000007"):
        made.artefacts().get(7, 1)
    assert made.resolve("trees", "weekly") == 4 == made.resolve("trees") and made.resolve("trees", "2") == 2
    made.promote("trees", 3)
    assert made.resolve("trees") == 3


def test_prune_keeps_what_is_or_may_come_into_force(tmp_path: Path) -> None:
    clock = Clock()
    made = registry(tmp_path, 12, clock)
    for k, version in enumerate((1, 2, 3)):
        clock.now = NOON + k * SECOND
        made.promote("trees", version)
    made.shadow("trees", 4)
    made.promote("trees", 5, NOON + 3600 * SECOND)
    assert made.prune(keep=2) == [("trees", v) for v in (1, 6, 7, 8, 9, 10)]  # 2 is what a rollback goes to, 5 is yet to come
    assert made.prune(keep=2) == []
    assert [v.pruned for v in made.versions("trees")].count(True) == 6
    assert len(made.versions("trees")) == 12 and len(made.history("trees")) == 5
    with pytest.raises(PenstockError, match=r"00000006.model.bin: pruned.*use another version"):
        made.promote("trees", 6)
    assert json.loads((tmp_path / "trees" / "00000006" / "card.json").read_text())["version"] == 6
    for version in (2, 3, 4, 5, 11, 12):
        assert made.get("trees", version).card.version == version
    assert made.register(artefact(13)) == 13


def test_what_a_topic_was_not_given_yet(tmp_path: Path) -> None:
    made = registry(tmp_path, 4)
    made.promote("trees", 1)
    made.promote("trees", 2)
    made.shadow("trees", 3)
    assert [e.version for e in made.unpublished("a")[0]] == [2, 3]  # a new topic begins with what is in force
    assert made.unpublished("a")[0] == made.unpublished("a")[0]
    made.mark_published("a", made.unpublished("a")[1])
    assert made.unpublished("a") == ([], 3)
    made.promote("trees", 4)
    assert [e.version for e in made.unpublished("a")[0]] == [4]
    made.mark_published("a", 4)
    made.mark_published("a", 2)  # a slower process does not set it back
    assert made.unpublished("a") == ([], 4)


def test_a_lock_that_is_held_too_long_is_said(tmp_path: Path) -> None:
    made = registry(tmp_path, 1, busy_s=0.05)
    other = sqlite3.connect(tmp_path / "registry.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PenstockError, match=r"registry.sqlite3: another process has been writing to it for 0.05 s; nothing was changed"):
        made.promote("trees", 1)
    assert states(made) == ["CANDIDATE"]  # reading does not wait for who writes
    other.execute("ROLLBACK")
    other.close()
    made.promote("trees", 1)


def test_a_registry_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    registry(tmp_path, 1)
    db = sqlite3.connect(tmp_path / "registry.sqlite3")
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(PenstockError, match="written in format 9.*update penstock"):
        Registry(tmp_path).names()


def test_the_card_on_disk_is_the_card_of_the_artefact(tmp_path: Path) -> None:
    made = registry(tmp_path, 1)
    text = (tmp_path / "trees" / "00000001" / "card.json").read_text(encoding="utf-8")
    assert text == card_json(made.get("trees", 1).card) + "\n"
    assert (tmp_path / "trees" / "00000001" / "digest").read_text().strip() == made.version("trees", 1).digest
    assert np.uint64(made.get("trees", 1).digest_id) == np.uint64(int(made.version("trees", 1).digest[:16], 16))
