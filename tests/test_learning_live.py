"""Models in running pipelines: what ran live is its replay, promotions arrive while it runs, and a learner's state at any place is remade."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.running import local_source
from operators.assembly import Plan, account_chain, market_chain
from research.learning.registry import Registry
from research.learning.registry_events import promotion_rows
from research.learning.resolving import promotions_between, resolved
from research.learning.state_at import Place, learners_at, states
from research.parity_runs import kafka_parity, local_parity, local_recording
from research.replaying import make_plan, replay, warm_up
from research.running import Running, as_begun
from schemas.config import Config, config_document, parse_config
from schemas.config_live import KafkaConfig
from schemas.errors import UserError
from schemas.frame import Frame
from schemas.tables_models import PREDICTIONS, SWITCHES
from sinks.kafka import KafkaSink
from sources.local_log import LocalLog
from sources.simulator import simulate
from tests.kafka_broker import kafka, servers  # noqa: F401
from tests.live_runs import command, ingest, ready
from tests.live_runs import run as run_kafka
from tests.test_learners_operator import LOGIT, RULE, SHARED, TREE, booster, planned, whole
from tests.warehouse_running import warehouse_url

MODELS = {"logit": {**LOGIT, "scope": "pooled"}, "tree": TREE, "trees": {"kind": "registered", "name": "trees"},
          "vote": {"kind": "ensemble", "members": ["logit", "tree", "trees"], "consensus": 0.6}}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two versions, the first active since 2020."""
    monkeypatch.setenv("PENSTOCK_MODELS", str(tmp_path / "models"))
    made = Registry(tmp_path / "models")
    for seed in (1, 2):
        made.register(booster(seed))
    made.promote("trees", 1, effective_ns=1_577_836_800 * 10**9, backdate=True)
    return made


def document(folder: Path) -> dict[str, Any]:
    return {"models": MODELS, "strategies": [RULE], "live": {"state_dir": str(folder), "snapshot_s": 0.2}}


def plan_of(folder: Path, kafka_config: KafkaConfig | None = None, run: str = "") -> Plan:
    extra = {} if kafka_config is None else {"kafka": {"servers": kafka_config.servers, "prefix": kafka_config.prefix}}
    config = parse_config({**document(folder), **extra}, "t")
    made = make_plan(as_begun(config, run) if run else config, None)
    warm_up(made)
    return made


def local(folder: Path, name: str, simulated: str = "3:1:7", promote_after: int = 3, stop_after: int | None = None, registry: Registry | None = None) -> list[Frame]:
    """A run without a broker; after so many frames version 2 is promoted for it."""
    import threading
    _, frames = local_source(Config(), None, simulated, None, None, "max", None)
    stop, left = threading.Event(), []

    def seen(frame: Frame) -> None:
        left.append(frame)
        if registry is not None and len(left) == promote_after:
            event = registry.promote("trees", 2)
            log = LocalLog(running.folder)
            log.promote(promotion_rows([event]))
            log.close()
        if stop_after is not None and len(left) >= stop_after:
            stop.set()

    made = plan_of(folder, run=name)
    running = Running(made, name, frames=frames, url=warehouse_url(), stop=stop, seen=seen)
    running.folder.mkdir(parents=True, exist_ok=True)
    log = LocalLog(running.folder)
    log.command("enable")
    log.close()
    running.go()
    return left


def test_a_run_with_models_is_its_replay_promotion_included(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflows.local_feed.FRAMES_A_POLL", 1)
    name = f"learn-{os.getpid()}"
    frames = local(tmp_path, name, "3:4:7", registry=registry)
    predictions = np.concatenate([f.rows(PREDICTIONS) for f in frames])
    mine = predictions[predictions["model"] == 3]
    switches = np.concatenate([SWITCHES.empty(0), *(f.rows(SWITCHES) for f in frames)])
    assert [(int(s["version"]), int(s["previous"])) for s in switches] == [(2, 1)]
    at = int(switches["seq"][0])
    assert set(mine["version"][mine["seq"] < at]) <= {1} and set(mine["version"][mine["seq"] >= at]) == {2}
    result = local_parity(tmp_path / name, warehouse_url(), name)
    assert result["ok"], result["difference"]
    assert min(result["compared"][n] for n in ("predictions", "labels", "votes", "scores", "switches", "fills")) > 0


def test_stopped_and_started_again_it_keeps_the_version_that_it_began_with(tmp_path: Path, registry: Registry,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataflows.local_feed.FRAMES_A_POLL", 1)
    name = f"again-{os.getpid()}"
    local(tmp_path, name, "3:4:7", stop_after=2)
    registry.promote("trees", 2)  # the run is not told
    local(tmp_path, name, "3:4:7")
    result = local_parity(tmp_path / name, warehouse_url(), name)
    assert result["ok"] and result["compared"]["switches"] == 0, result


@pytest.mark.kafka
def test_on_topics_too(kafka: KafkaConfig, tmp_path: Path, registry: Registry) -> None:  # noqa: F811
    ready(kafka)
    command(kafka)
    ingest(kafka)
    event = registry.promote("trees", 2)
    made = plan_of(tmp_path, kafka)
    with KafkaSink(kafka, "", "paper") as sink:
        sink.write(SWITCHES, SWITCHES.empty(0))
        from schemas.tables_models import PROMOTIONS
        sink.write(PROMOTIONS, promotion_rows([event]))
    run_kafka(made, workers=2)
    result = kafka_parity(kafka, "r")
    assert result["ok"] and result["compared"]["predictions"] > 100 and result["compared"]["votes"] > 100, result["difference"]


def test_a_replay_uses_the_version_that_was_live_at_each_moment(registry: Registry) -> None:
    source = simulate(3, 3, 11)
    begin, end = source.ts_range
    middle = (begin + end) // 2
    registry.promote("trees", 2, effective_ns=middle, backdate=True)
    made = replay(source, {"models": {"trees": MODELS["trees"]}, "strategies": []})
    rows = made.table(PREDICTIONS)
    versions, ts = np.array(rows["version"]), np.array(rows["ts_event_ns"].cast("int64"))
    assert (versions[ts < middle] == 1).all() and (versions[ts > middle + 60 * 10**9] == 2).all() and {1, 2} == set(versions.tolist())
    assert promotions_between(made.plan.models, begin, end)["version"].tolist() == [2]
    again = replay(source, {"models": {"trees": {**MODELS["trees"], "version": 1}}, "strategies": []})
    assert set(again.table(PREDICTIONS)["version"].to_pylist()) == {1}


def test_what_is_recorded_of_a_run_plans_the_same_without_asking_which_version_is_active(registry: Registry) -> None:
    config = resolved(parse_config({"models": MODELS}, "t"), 1_700_000_000 * 10**9)
    registry.promote("trees", 2)
    recorded = parse_config(config_document(config), "r")
    assert recorded.models == config.models and resolved(recorded, 2**63 - 1).models == config.models
    trees = config.models[2]
    assert (trees.initial, trees.features, trees.label.horizon_ns) == (1, booster(1).card.features, 5 * 60 * 10**9)


@pytest.mark.parametrize(("stated", "why"), [
    ({"features": ["rsi(15)", *booster(1).card.features[1:]]}, r"another feature set: without rsi\(15\); with "),
    ({"timeframe": "5m"}, "its timeframe is 1m, not 5m"), ({"task": "regress"}, "its task is classify, not regress"),
    ({"label": {"kind": "forward_return", "horizon": "7m"}}, "another label"), ({"features": list(booster(1).card.features)}, ""),
])
def test_what_a_configuration_says_of_a_registered_model_has_to_be_so(registry: Registry, stated: dict[str, Any], why: str) -> None:
    config = parse_config({"models": {"trees": {**MODELS["trees"], **stated}}}, "t")
    if why:
        with pytest.raises(UserError, match=f"models trees: version 1 of trees: .*{why}"):
            resolved(config, 1_700_000_000 * 10**9)
    else:
        assert resolved(config, 1_700_000_000 * 10**9).models[0].features == booster(1).card.features


def test_no_active_version_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MODELS", str(tmp_path / "models"))
    Registry(tmp_path / "models").register(booster(1))
    with pytest.raises(UserError, match=r"no version of trees is active now; `penstock model promote trees VERSION`"):
        make_plan(parse_config({"models": {"trees": MODELS["trees"]}}, "t"), None)


def test_the_state_at_random_places_is_that_of_learners_that_were_put_back_there() -> None:
    plan, frame = planned("shared"), whole()
    random = np.random.default_rng(20)
    for seq in np.sort(random.integers(5_000, 78_000, 20)).tolist():
        place = Place(seq=seq)
        scratch = states(learners_at(plan, [frame], place))
        chains = [market_chain(plan), account_chain(plan)]
        cut = seq // 2
        first = Place(seq=cut).before(frame)
        rest = frame.with_tables(**{n: rows[(rows["seq"] > cut) & (rows["seq"] <= seq)] for n, rows in frame.tables.items()})
        for chain in chains:
            first = chain.step(first)
        saved = pickle.dumps([chain.snapshot() for chain in chains])
        chains = [market_chain(plan), account_chain(plan)]
        for chain, state in zip(chains, pickle.loads(saved), strict=True):
            chain.restore(state)
            rest = chain.step(rest)
        learners = chains[1].operators[0]
        assert states(learners) == scratch  # type: ignore[arg-type]
    assert len(scratch) == 3 + 1 + 3 + 3 and all(s["learned"] > 50 for s in scratch)


def test_the_state_of_a_recorded_run(tmp_path: Path, registry: Registry) -> None:
    name = f"state-{os.getpid()}"
    frames = local(tmp_path, name)
    log = LocalLog(tmp_path / name, create=False)
    given = local_recording(log, name)
    learned = [s["learned"] for place in (Place(seq=10_000), Place(seq=2**60))
               for s in states(learners_at(given.plan, given.source().frames(), place)) if s["model"] == "logit"]
    predictions = np.concatenate([f.rows(PREDICTIONS) for f in frames])
    assert learned[1] > learned[0] > 0 and learned[1] >= predictions["learned"][predictions["model"] == 1].max()
    log.close()


_ = SHARED
