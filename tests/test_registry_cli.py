"""`penstock model`: what it prints for machines is as documented, mistakes end with 2 and failures with 1, and the topic hears of changes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cli.errors import guarded
from cli.main import app
from research.learning.registry import Registry
from schemas.config_live import KafkaConfig
from schemas.ids import name_id
from schemas.tables_models import PROMOTIONS
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.kafka_reading import messages, rows_in
from tests.registry_made import artefact

DOCS = Path(__file__).parents[1] / "docs" / "models.md"


class Penstock:
    """Runs `penstock model …` in this process on one registry."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.code, self.said = folder, capsys, 0, ""

    def __call__(self, *words: str) -> str:
        found: list[Any] = []
        failed = guarded(lambda: found.append(app(["model", *words, "--registry", str(self.folder)], standalone_mode=False)))
        shown = self.capsys.readouterr()
        self.code, self.said = failed or (found[0] if found and isinstance(found[0], int) else 0), shown.err
        return shown.out

    def json(self, *words: str) -> Any:
        text = self(*words, "--json")
        assert self.code == 0, self.said
        return json.loads(text)

    def refused(self, *words: str) -> str:
        assert self(*words) == "" and self.code == 2, (self.code, self.said)
        return " ".join(self.said.split())


@pytest.fixture
def penstock(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Penstock:
    monkeypatch.setattr("cli.output.out.width", 250)
    made = Registry(tmp_path / "models")
    made.register(artefact(1, metrics={"accuracy": 0.51}, data={"rows": 1000}), tag="first")
    made.register(artefact(2, parameters={"num_leaves": 63}, metrics={"accuracy": 0.53}, data={"rows": 2000}), tag="exp1", parent=1)
    return Penstock(tmp_path / "models", capsys)


def documented(command: str) -> set[str]:
    """The keys that docs/models.md gives for a command's JSON."""
    row = re.search(rf"^\| `penstock model {command}` \|([^|]*)\|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None, f"docs/models.md has no row for {command}"
    return set(re.findall(r"`([a-z_]+)`", re.sub("as in `[a-z]+`", "", row[1])))


def test_json_is_as_documented(penstock: Penstock) -> None:
    penstock.json("promote", "trees", "1")
    for command, words in (
        ("list", ["list"]), ("list --name", ["list", "--name", "trees"]), ("show", ["show", "trees@exp1"]), ("diff", ["diff", "trees", "1", "exp1"]),
        ("history", ["history", "trees"]), ("promote", ["promote", "trees", "2", "--reason", "better"]), ("rollback", ["rollback", "trees"]),
        ("retire", ["retire", "trees", "1"]), ("prune", ["prune", "--keep", "1"]), ("repair", ["repair"]),
    ):
        assert set(penstock.json(*words)) == documented(command), command


def test_a_life(penstock: Penstock) -> None:
    assert penstock.json("list")["models"] == [{"name": "trees", "versions": 2, "active": 0, "shadow": 0, "latest": 2,
                                               "latest_created_ns": Registry(penstock.folder).version("trees", 2).created_ns}]
    first = penstock.json("promote", "trees", "first", "--reason", "the first", "--actor", "ann")
    assert (first["version"], first["action"], first["reason"], first["actor"], first["published"]) == (1, "activate", "the first", "ann", 0)
    assert penstock.json("promote", "trees", "2", "--shadow")["action"] == "shadow"
    assert [v["state"] for v in penstock.json("list", "--name", "trees")["versions"]] == ["ACTIVE", "SHADOW"]
    assert penstock.json("show", "trees")["version"] == 1 and penstock.json("show", "trees@2")["state"] == "SHADOW"
    penstock.json("promote", "trees", "exp1")
    assert penstock.json("rollback", "trees")["version"] == 1
    assert penstock.json("rollback", "trees", "--to", "2")["version"] == 2
    later = penstock.json("rollback", "trees", "--at", "2200-01-01")
    assert later["effective_ns"] == 7_258_118_400 * 10**9
    assert [(e["action"], e["version"], e["active"], e["shadow"]) for e in penstock.json("history", "trees")["events"]] == [
        ("activate", 1, 1, 0), ("shadow", 2, 1, 2), ("activate", 2, 2, 0), ("rollback", 1, 1, 0), ("rollback", 2, 2, 0), ("rollback", 1, 1, 0)]


def test_diff_says_what_differs_and_nothing_else(penstock: Penstock) -> None:
    found = penstock.json("diff", "trees", "1", "2")
    assert {c["what"]: (c["a"], c["b"]) for c in found["changed"]} == {
        "data.rows": (1000, 2000), "metrics.accuracy": (0.51, 0.53), "parameters.num_leaves": (31, 63), "parent": (0, 1), "seed": (1, 2),
        "tag": ("first", "exp1")}
    assert (found["features_added"], found["features_removed"], found["features_reordered"]) == ([], [], False)
    other = artefact(3, importance=[{"feature": "rsi(14)", "gain": 0.75, "splits": 3}])
    from dataclasses import replace
    Registry(penstock.folder).register(replace(other, card=replace(other.card, features=("ret(5)", "rsi(14)", "atr(14)"))))
    found = penstock.json("diff", "trees", "2", "3")
    assert (found["features_added"], found["features_removed"], found["features_reordered"]) == (["atr(14)"], [], True)
    assert {"what": "importance.rsi(14).gain", "a": None, "b": 0.75} in found["changed"]
    assert penstock.json("diff", "trees", "2", "2")["changed"] == []
    assert "nothing differs" in penstock("diff", "trees", "2", "2")


def test_for_people(penstock: Penstock) -> None:
    assert re.search(r"trees \W+2 \W+none \W+none", penstock("list"))
    penstock("promote", "trees", "2")
    assert "trees version 2: active from 20" in penstock.said
    assert re.search(r"2 \W+ACTIVE \W+lightgbm \W+classify \W+exp1 \W+1 .*accuracy 0.53", penstock("list", "--name", "trees"))
    shown = penstock("show", "trees")
    assert "trees version 2" in shown and re.search(r"parameters.num_leaves \W+63", shown)
    assert "activate" in penstock("history", "trees") and re.search(r"data.rows \W+1000 \W+2000", penstock("diff", "trees", "1", "2"))
    assert "database whole: 2 versions, 1 events" in penstock("repair") and penstock("prune").strip() == "pruned: nothing"


def test_mistakes_say_what_to_do(penstock: Penstock) -> None:
    assert 'did you mean "trees"' in penstock.refused("promote", "tree", "1")
    assert "it has 1 to 2" in penstock.refused("promote", "trees", "5")
    assert 'did you mean "exp1"' in penstock.refused("show", "trees@exp")
    assert "--at \"soon\" is not a time" in penstock.refused("promote", "trees", "1", "--at", "soon")
    assert "--backdate" in penstock.refused("promote", "trees", "1", "--at", "2020-01-01")
    assert "no version was active before" in penstock.refused("rollback", "trees")
    assert "needs --config" in penstock.refused("publish")
    assert penstock.json("promote", "trees", "1", "--at", "2020-01-01", "--backdate")["effective_ns"] == 1_577_836_800 * 10**9


def test_an_empty_registry_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Penstock(tmp_path / "none", capsys)
    assert empty.json("list")["models"] == [] and "penstock model train" in empty("list")
    assert "there are none in the registry" in empty.refused("show", "trees")
    assert "no registry is there" in empty.refused("repair")


def test_damage_ends_with_1(penstock: Penstock) -> None:
    penstock("promote", "trees", "1")
    (penstock.folder / "trees" / "00000002" / "model.bin").write_bytes(b"")
    assert penstock("promote", "trees", "2") == "" and penstock.code == 1 and "not what was registered" in " ".join(penstock.said.split())
    assert "not what was registered" in penstock.json("show", "trees@2")["trouble"]
    assert penstock.json("list")["models"][0]["active"] == 1
    assert "version 2" in json.loads(penstock("repair", "--json"))["trouble"][0]


def test_learners_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    app(["model", "learners", "--json"], standalone_mode=False)
    found = {e["name"]: e for e in json.loads(capsys.readouterr().out)["learners"]}
    assert found["LogisticRegression"]["parameters"]["l2"] == 0.0
    app(["model", "learners"], standalone_mode=False)
    assert "LogisticRegression" in capsys.readouterr().out


def told(broker: KafkaConfig) -> list[tuple[int, int, str]]:
    rows = [r[0] for r in rows_in(PROMOTIONS, messages(broker, "promotions"), ())]
    assert all(int(r["model_id"]) == name_id("trees") and int(r["symbol"]) == -1 for r in rows)
    return [(int(r["ts_event_ns"]), int(r["version"]), PROMOTIONS.field("action").labels[int(r["action"])]) for r in rows]


def test_the_topic_hears_of_every_change_once(penstock: Penstock, kafka: KafkaConfig, tmp_path: Path) -> None:  # noqa: F811
    from tests.execute_setup import make_topics
    make_topics(kafka)
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"kafka": {"servers": kafka.servers, "prefix": kafka.prefix}}))
    penstock.json("promote", "trees", "1")  # before there was a topic
    assert penstock.json("promote", "trees", "2", "--config", str(config))["published"] == 1
    assert penstock.json("promote", "trees", "2", "--config", str(config))["published"] == 0
    penstock.json("rollback", "trees")  # as if the broker had not been there
    assert penstock.json("publish", "--config", str(config)) == {"published": 1}
    assert penstock.json("retire", "trees", "1", "--config", str(config))["published"] == 1
    events = penstock.json("history", "trees")["events"]
    assert told(kafka) == [(e["effective_ns"], e["version"], e["action"]) for e in events[1:]]


def test_without_a_broker_the_registry_has_the_event_and_says_how_to_publish_it(penstock: Penstock, tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(json.dumps({"kafka": {"servers": "127.0.0.1:1", "options": {"socket.timeout.ms": 500}}}))
    assert penstock("promote", "trees", "1", "--config", str(config)) == "" and penstock.code == 1
    said = " ".join(penstock.said.split())
    assert "the registry has the event and the topic does not" in said and "penstock model publish --config" in said
    assert Registry(penstock.folder).active_at("trees") == 1 and Registry(penstock.folder).unpublished("x")[1] == 1
