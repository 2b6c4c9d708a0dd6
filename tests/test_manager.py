"""The learning cycle from trigger to promotion: what is better is promoted, what is not is refused, and nothing goes live unseen."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.learning.cycle import Cycles
from research.learning.gates import GATES
from research.learning.governance import certificates, verify_certificates
from research.learning.manager import Stopped
from research.learning.training import train
from research.learning.triggers import History
from schemas.errors import PenstockError, UserError
from tests.learning_made import LEARN, NAME, World, made, shuffled, turned, until


def state(world: World) -> dict[int, str]:
    return {v.version: v.state for v in world.registry.versions(NAME)}


def test_two_cycles_in_a_market_with_a_weak_signal(tmp_path: Path) -> None:
    """The first version with skill is promoted over none; one that learned the same from a little more is not better, and is refused."""
    whole = made(3100)
    world = World(tmp_path, until(whole, 3000))
    assert world.first() == 1
    found = world.manager().once()
    assert (found["status"], found["version"]) == ("promoted", 2)
    assert state(world) == {1: "CANDIDATE", 2: "ACTIVE"}
    world.data = whole
    assert world.manager().once()["status"] == "idle"  # no trigger
    found = world.manager().once("a look")
    assert (found["status"], found["version"]) == ("refused", 3)
    assert "better" in found["reason"]
    assert state(world) == {1: "CANDIDATE", 2: "ACTIVE", 3: "CANDIDATE"}
    events = [e.action for e in world.registry.history(NAME)]
    assert events == ["shadow", "activate"]
    assert [(r["cycle"], r["kind"]) for r in History(Cycles(tmp_path, NAME).triggers_path).read()] == [(1, "first"), (2, "manual")]
    assert verify_certificates(tmp_path / "certificates.jsonl")["certificates"] == 2
    card = world.registry.get(NAME, 2).card
    assert card.about["lineage"]["cycle"] == 1 and card.about["tag"] == "cycle-1"


def test_a_market_that_turned_promotes_and_rolls_back_is_possible(tmp_path: Path) -> None:
    world = World(tmp_path, until(made(4500, flip_at=1500), 1500))
    world.first()
    assert world.manager().once()["status"] == "promoted"
    later = turned(tmp_path)
    found = later.manager().once("the market turned")
    assert (found["status"], found["version"]) == ("promoted", 3)
    assert state(later) == {1: "CANDIDATE", 2: "RETIRED", 3: "ACTIVE"}
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None and {v["gate"] for v in cycle.verdicts} == {g.name for g in GATES}
    assert all(v["outcome"] == "passed" for v in cycle.verdicts)
    assert later.registry.version(NAME, 3).parent == 2
    later.registry.rollback(NAME)
    assert state(later)[2] == "ACTIVE"


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_labels_are_never_promoted(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, shuffled(made(3000, seed), seed))
    world.first()
    found = world.manager().once()
    assert found["status"] == "refused"
    assert state(world) == {1: "CANDIDATE", 2: "CANDIDATE"}
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None
    failed = {v["gate"] for v in cycle.verdicts if v["outcome"] == "failed"}
    assert failed & {"skill", "direction"}
    assert abs(cycle.figures["candidate"]["metrics"]["accuracy"] - 0.5) < 0.06
    assert not {v["stage"] for v in cycle.verdicts} & {"shadow"}


def test_the_parts_are_apart(tmp_path: Path) -> None:
    """No label of the training rows looks into the evaluation, nor of those into the shadow stretch; none is lost but those between."""
    world = World(tmp_path, made(2000))
    world.first()
    manager = world.manager()
    manager.once()
    cycle = manager.cycles.last()
    assert cycle is not None
    data, train, evaluate, shadow = manager.bench.parts(cycle, world.registry.get(NAME, 2).card)
    assert data.ts_end_ns[train].max() < data.ts_made_ns[evaluate].min()
    assert data.ts_end_ns[evaluate].max() < data.ts_made_ns[shadow].min()
    used = len(train) + len(evaluate) + len(shadow)
    assert len(data) - used == 2 * 2 * 6  # two borders, two symbols, five bars of horizon and one of embargo
    assert world.registry.get(NAME, 2).card.about["data"]["rows"] == len(train)
    assert len(evaluate) / len(data) == pytest.approx(0.25, abs=0.02)


def test_the_report_says_what_was_found(tmp_path: Path) -> None:
    world = World(tmp_path, made(3000))
    world.first()
    world.manager().once("Ada asked")
    folder = Cycles(tmp_path, NAME).folder(1)
    text = (folder / "report.md").read_text()
    told = json.loads((folder / "report.json").read_text())
    for part in ("# trees: learning cycle 1", "**Promoted.** Version 2", "Ada asked", "## Data", "AAA, BBB", "right directions",
                 "information coefficient", "## Shadow", "## Gates", "## Certificate", "| skill |", "not applicable", "usual", "stopped"):
        assert part in text, part
    accuracy = told["figures"]["candidate"]["metrics"]["accuracy"]
    assert f"| right directions | {accuracy:.2%} |" in text
    for key in ("accuracy", "ic"):  # on the whole sample the interval's figure is the figure
        assert told["figures"]["intervals"][key]["value"] == pytest.approx(told["figures"]["candidate"]["metrics"][key], abs=1e-12)
    assert told["figures"]["intervals"]["loss"]["value"] == pytest.approx(told["figures"]["candidate"]["metrics"]["log_loss"], abs=1e-12)
    low, high = (told["figures"]["intervals"]["accuracy"][k] for k in ("low", "high"))
    assert low < accuracy < high and f"{low:.2%} to {high:.2%}" in text
    assert [e["event"] for e in world.events] == ["triggered", "trained", "evaluated", "registered", "shadowed", "promoted"]
    for gate in told["verdicts"]:
        assert f"| {gate['gate']} |" in text
    lines = text.splitlines()
    assert not any(a == b == "" for a, b in zip(lines, lines[1:], strict=False))
    assert certificates(tmp_path / "certificates.jsonl")[0]["model"]["version"] == 2


def test_the_same_cycle_again_is_the_same(tmp_path: Path) -> None:
    found = []
    for k in range(2):
        world = World(tmp_path / str(k), made(3000))
        world.first()
        world.manager().once()
        told = json.loads((Cycles(world.folder, NAME).folder(1) / "report.json").read_text())
        found.append((told["figures"], told["verdicts"], world.registry.get(NAME, 2).digest))
    assert found[0] == found[1]


def test_each_gate_alone_refuses(tmp_path: Path) -> None:
    world = World(tmp_path / "base", made(3000))
    world.first()
    world.manager().once()
    cycle = Cycles(world.folder, NAME).last()
    assert cycle is not None
    from research.learning.gates import EVALUATION, SHADOW, refused_by, verdicts
    for stage in (EVALUATION, SHADOW):
        assert refused_by(verdicts(stage, cycle.figures, LEARN)) == []
    changes = {"skill": {"p_max": 0.0}, "regimes": {"regime_accuracy_min": 0.99}, "shadow_rows": {"shadow_rows": 10**6},
               "shadow_floor": {"accuracy_floor": 0.99}}
    for gate, change in changes.items():
        learn = replace(LEARN, **change)
        stage = next(g.stage for g in GATES if g.name == gate)
        assert refused_by(verdicts(stage, cycle.figures, learn)) == [gate]
    broken = {**cycle.figures, "certificate": {"passed": 0.9}, "selector": {"chosen": 0.0}, "edge": {"low": None},
              "against_active": {"p_less": 0.2}, "shadow": {**cycle.figures["shadow"], "distance_sure": 0.3, "against_active": {"p_worse": 0.01}}}
    assert refused_by(verdicts(EVALUATION, broken, LEARN)) == ["direction", "better", "certified", "selected"]
    assert refused_by(verdicts(SHADOW, broken, LEARN)) == ["shadow_loss", "shadow_errors"]


def test_approval_by_hand(tmp_path: Path) -> None:
    world = World(tmp_path, made(3000), replace(LEARN, approve=True))
    world.first()
    found = world.manager().once()
    assert found["status"] == "waiting for approval" and "--approve" in found["reason"]
    assert state(world) == {1: "CANDIDATE", 2: "SHADOW"}
    assert world.manager().once()["status"] == "waiting for approval"
    assert world.manager().approve()["status"] == "promoted"
    assert state(world)[2] == "ACTIVE"
    with pytest.raises(UserError, match="waits for approval: it is promoted"):
        world.manager().approve()


def test_abort_takes_it_out_of_shadow(tmp_path: Path) -> None:
    world = World(tmp_path, made(3000), replace(LEARN, approve=True))
    world.first()
    world.manager().once()
    assert world.manager().abort("changed my mind").status == "aborted"
    assert state(world) == {1: "CANDIDATE", 2: "RETIRED"}
    with pytest.raises(UserError, match="no cycle of trees is under way"):
        world.manager().abort("again")
    assert world.manager().once("again")["cycle"] == 2


def test_another_version_that_became_active_meanwhile_is_not_overridden(tmp_path: Path) -> None:
    world = World(tmp_path, made(3000), replace(LEARN, approve=True))
    world.first()
    world.manager().once()
    world.registry.promote(NAME, 1)
    found = world.manager().approve()
    assert found["status"] == "aborted" and "version 1 became active meanwhile" in found["reason"]
    assert state(world)[1] == "ACTIVE"


def test_stopping_between_and_within_steps_keeps_what_was_finished(tmp_path: Path) -> None:
    world = World(tmp_path, made(3000))
    world.first()
    asked: list[str] = []

    def stop_after(n: int) -> None:
        manager = world.manager(stopping=lambda: len(asked) >= n, progress=lambda what, done, total: asked.append(what))
        with pytest.raises(Stopped, match="the next penstock learn"):
            manager.once()

    stop_after(5)
    assert asked[-1] == "training" and asked.count("training") < 40
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None and (cycle.step, cycle.status) == ("triggered", "running")
    asked.clear()
    world.manager(stopping=lambda: False).once()
    assert state(world)[2] == "ACTIVE" and Cycles(tmp_path, NAME).numbers() == [1]


def test_data_that_changed_ends_the_cycle_and_grown_data_does_not(tmp_path: Path) -> None:
    whole = made(3000)
    world = World(tmp_path, until(whole, 2800), replace(LEARN, approve=True))
    world.first()

    def killed(label: str) -> None:
        if label == "trained":
            raise KeyboardInterrupt

    world.step = killed
    with pytest.raises(KeyboardInterrupt):
        world.manager().once()
    world.step, world.data = (lambda label: None), whole  # more rows by now: the cut stays
    assert world.manager().once()["status"] == "waiting for approval"
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None and cycle.data["rows"] == len(until(whole, 2800))
    world.manager().abort("next")
    world.step = killed
    with pytest.raises(KeyboardInterrupt):
        world.manager().once("again")
    world.step = lambda label: None
    world.data = replace(whole, x=whole.x + 1e-9)
    with pytest.raises(PenstockError, match="began on other data"):
        world.manager().once()
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None and cycle.status == "aborted" and "other data" in cycle.reason
    assert state(world)[1] == "CANDIDATE"


def test_a_model_of_the_label_itself(tmp_path: Path) -> None:
    """A regressor: its base rate is the mean, its loss the squared error, and calibration does not arise."""
    world = World(tmp_path, made(3000))
    world.first(task="regress")
    assert world.manager().once()["status"] == "promoted"
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None
    found = cycle.figures["candidate"]["metrics"]
    assert found["log_loss"] is None and found["r2"] > 0.05
    assert "calibration" not in {c["name"] for c in cycle.certificate["checks"]}


def test_a_search_of_parameters_is_part_of_the_cycle(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    world = World(tmp_path, made(3000), replace(LEARN, trials=2))
    world.first(early_stopping=5)
    world.manager().once()
    lineage = world.registry.get(NAME, 2).card.about["lineage"]
    assert lineage["search"]["trials"] == 2 and lineage["cycle"] == 1


def test_two_managers_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, made(1500))
    world.first()
    with Cycles(tmp_path, NAME).alone(), pytest.raises(UserError, match="another `penstock learn` is at work"):
        world.manager().once()
    with pytest.raises(UserError, match='did you mean "trees"'):
        replace(world.manager(), name="tress").once()


def test_too_little_data_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, made(2000))
    world.first()
    world.data = until(made(2000), 12)
    with pytest.raises(UserError):
        world.manager().once("try")
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None and cycle.status == "aborted"


def test_rows_are_what_the_market_gives() -> None:
    """The signal of the synthetic market is weak and known: its rank correlation with the label over five bars."""
    data = made(4000)
    r = np.corrcoef(data.x[:, 0], data.value)[0, 1]
    assert 0.4 < r < 0.75


@pytest.mark.parametrize(("seen", "compared"), [(3000, 0), (2200, 1000), (1200, 1480)])
def test_the_active_version_is_compared_on_what_its_training_did_not_see(tmp_path: Path, seen: int, compared: int) -> None:
    """Its own training rows would make it look better than it is."""
    data = made(3000)
    world = World(tmp_path, data)
    world.registry.register(train(until(data, seen), parameters={"rounds": 40, "num_leaves": 7}, name=NAME, early_stopping=0, valid_share=0.0), "all")
    world.registry.promote(NAME, 1)
    world.manager().once("a look")
    cycle = Cycles(tmp_path, NAME).last()
    assert cycle is not None
    told, found = cycle.figures["active_unseen"], cycle.figures["active"]
    assert told["of"] == cycle.figures["candidate"]["metrics"]["rows"] and abs(told["rows"] - compared) <= 24
    report = (Cycles(tmp_path, NAME).folder(1) / "report.md").read_text()
    better = next(v for v in cycle.verdicts if v["gate"] == "better")
    assert (better["outcome"] == "not applicable") == (compared == 0) == (found is None)
    assert ("too few to compare" in report) == (compared == 0)
    assert (f"compared on the {told['rows']:,} of {told['of']:,} bars" in report) == (0 < told["rows"] < told["of"])
    if found is not None:
        assert found["metrics"]["rows"] == told["rows"] and cycle.figures["against_active"]["n"] <= told["rows"]
