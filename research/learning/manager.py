"""The continuous learning manager: trigger → train → evaluate → register → shadow → gates → promote or not, then watch and go back.

Every step ends by writing the cycle's state, and doing a step again changes nothing more, so a cycle that was stopped or killed goes on
where it was. Until the one event that promotes, the version in use stays what it was; what fails on the way fails without it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from research.learning.comparing import compare, shadow_figures
from research.learning.cycle import ABORTED, APPROVAL, PROMOTED, REFUSED, RUNNING, STEPS, WAITING, Cycle, Cycles
from research.learning.cycle_report import write_cycle_report
from research.learning.dataset import Dataset
from research.learning.evaluation import Outcomes
from research.learning.gates import EVALUATION, SHADOW, refused_by, verdicts
from research.learning.governance import FILE, certificates, certify, fallback_plan
from research.learning.material import Material, Workbench, outcomes_of, regimes_of
from research.learning.registry import Registry
from research.learning.search import search
from research.learning.training import recipe_of, train, train_again
from research.learning.triggers import History, due
from research.learning.watching import Feed, paired, regime_shares, standing_of, watch
from schemas.artefact import Artefact, Card
from schemas.config_learn import LearnConfig, duration_ns
from schemas.errors import PenstockError, UserError

ACTOR = "penstock learn"


class Stopped(PenstockError):
    """Somebody asked it to stop; what was finished is kept."""


@dataclass
class Manager:
    """Manages one model of a registry. provide: the material for a card's columns and label, as it is now. feed: None where no pipeline
    runs: then shadow is the last stretch of the data, which neither training nor evaluation saw. tell: is told what happens. stopping:
    asked between and within steps. step: called at each step, for tests that kill the process there."""

    registry: Registry
    name: str
    learn: LearnConfig
    provide: Callable[[Card], Material]
    now: Callable[[], int]
    feed: Feed | None = None
    rule_names: tuple[str, ...] = ()
    tell: Callable[[dict[str, Any]], None] = lambda event: None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    stopping: Callable[[], bool] = lambda: False
    step: Callable[[str], None] = lambda label: None

    def __post_init__(self) -> None:
        self.cycles = Cycles(self.registry.path, self.name)
        self.bench = Workbench(self.registry, self.name, self.learn, self.provide)

    # what is asked from outside

    def once(self, manual: str = "") -> dict[str, Any]:
        """Look once: watch the version in use, go on with a cycle that is not over, or begin one where there is a reason. Gives how it
        stands: {"status", "cycle", …}."""
        with self.cycles.alone():
            self.bench.renew()
            watched = self._watch()
            cycle = self.cycles.last()
            if cycle is None or cycle.over:
                begun = self._begin(cycle, manual)
                if begun is None:
                    return {"status": "idle", "cycle": cycle.number if cycle else 0, "watch": watched}
                cycle = begun
            cycle = self._run(cycle)
            return {"status": cycle.status, "cycle": cycle.number, "version": cycle.version, "reason": cycle.reason, "watch": watched}

    def abort(self, reason: str) -> Cycle:
        """End the cycle that is not over; nothing is promoted, and a version in shadow is taken out of it."""
        with self.cycles.alone():
            cycle = self.cycles.last()
            if cycle is None or cycle.over:
                raise UserError(f"no cycle of {self.name} is under way")
            return self._end(cycle, ABORTED, reason)

    def approve(self) -> dict[str, Any]:
        """Let a cycle that waits for approval promote its version."""
        with self.cycles.alone():
            cycle = self.cycles.last()
            if cycle is None or cycle.status != APPROVAL:
                raise UserError(f"no cycle of {self.name} waits for approval" + (f": it is {cycle.status}" if cycle else ""))
            cycle = self._run(self.cycles.save(cycle, self.now(), approved=True, status=RUNNING))
            return {"status": cycle.status, "cycle": cycle.number, "version": cycle.version, "reason": cycle.reason, "watch": None}

    # beginning

    def _begin(self, last: Cycle | None, manual: str) -> Cycle | None:
        active = self._active()
        state, seen = standing_of(self.registry, self.name, active, self.feed, self.bench, self.learn.recent_rows, manual)
        found = due(state, self.now(), seen, self.learn, last.updated_ns if last else 0)
        if not found:
            return None
        number = last.number + 1 if last else 1
        cycle = self.cycles.save(Cycle(self.name, number, self.now(), active=active, triggers=[asdict(t) for t in found]), self.now())
        History(self.cycles.triggers_path).append(found, number)
        self._say(cycle, "triggered", why=[t.why for t in found])
        self.step("triggered")
        return cycle

    def _active(self) -> int:
        return self.registry.active_at(self.name, self.now())

    # the steps

    def _run(self, cycle: Cycle) -> Cycle:
        todo = {"triggered": self._train, "trained": self._evaluate, "evaluated": self._register, "registered": self._shadow,
                "shadowed": self._decide}
        while not cycle.over and cycle.status != APPROVAL:
            if self.stopping():
                raise Stopped(f"stopped; cycle {cycle.number} of {self.name} is at: {cycle.step}; it goes on with the next penstock learn")
            self.progress(cycle.step, STEPS.index(cycle.step), len(STEPS) - 1)
            try:
                cycle = todo[cycle.step](cycle)
            except Stopped:
                raise
            except PenstockError as error:
                cycle = self._end(cycle, ABORTED, str(error))
                self._report(cycle)
                raise
            if cycle.status == WAITING:
                break
            self.step(cycle.step)
        self._report(cycle)
        return cycle

    def _train(self, cycle: Cycle) -> Cycle:
        source = self.bench.recipe(cycle.active)
        data = self.bench.given(source).data
        cut = cycle.data or self.bench.cut(data)
        cycle = self.cycles.save(cycle, self.now(), data=cut)
        data, part, _, _ = self.bench.parts(cycle, source)
        embargo_ns, lineage = duration_ns(self.learn.embargo, "learn embargo"), {"cycle": cycle.number, "parent": source.version,
                                                                                "data_to_ns": cut["to_ns"]}
        mine = data.take(part)
        if self.learn.trials:
            artefact = self._searched(cycle, source, mine, embargo_ns, lineage)
        else:
            artefact = train_again(source, mine, lineage=lineage, progress=self._halting("training"))
        self.step("training")
        self.cycles.keep(cycle.number, artefact)
        cycle = self.cycles.save(cycle, self.now(), step="trained")
        self._say(cycle, "trained", rows=len(mine))
        return cycle

    def _searched(self, cycle: Cycle, source: Card, data: Dataset, embargo_ns: int, lineage: dict[str, Any]) -> Artefact:
        """Parameters by a search whose study lies beside the cycle's state, so that it too goes on."""
        r, valid_share, valid_embargo_ns = recipe_of(source)
        halting = self._halting("searching")
        found = search(data, r, self.learn.trials, embargo_ns=embargo_ns,
                       storage=f"sqlite:///{(self.cycles.folder(cycle.number) / 'study.sqlite3').resolve()}",
                       progress=lambda done, total, best: halting(done, total))
        return train(data, r.model, found.parameters, r.task, r.seed, r.class_weight, r.early_stopping, valid_share, name=self.name,
                     embargo_ns=valid_embargo_ns, threads=r.threads, lineage={**lineage, **found.lineage()},
                     progress=self._halting("training"))

    def _evaluate(self, cycle: Cycle) -> Cycle:
        candidate = self.cycles.candidate(cycle.number)
        data, trained, part, _ = self.bench.parts(cycle, candidate.card)
        rules = self.bench.given(candidate.card).rules
        o = outcomes_of(data, candidate, part, "candidate")
        active, unseen = self.bench.other(cycle, candidate.card, data, part)
        base = float(data.up[trained].mean() if candidate.card.task == "classify" else data.value[trained].mean())
        found, _ = compare(o, active, base, rules, self.learn)
        found["active_unseen"] = unseen
        found["regime_shares"] = regime_shares(regimes_of(data)[trained])
        judged = verdicts(EVALUATION, found, self.learn)
        cycle = self.cycles.save(cycle, self.now(), step="evaluated", figures=found, verdicts=[asdict(v) for v in judged])
        self._say(cycle, "evaluated", metrics=found["candidate"]["metrics"], gates={v.gate: v.outcome for v in judged})
        return cycle

    def _register(self, cycle: Cycle) -> Cycle:
        candidate = self.cycles.candidate(cycle.number)
        tag = f"cycle-{cycle.number}"
        done = [v.version for v in self.registry.versions(self.name) if v.tag == tag]
        told = {**cycle.figures["candidate"]["metrics"], "regimes": list(cycle.figures["regime_shares"])}
        version = done[0] if done else self.registry.register(candidate, tag, told, cycle.active or None)
        self.step("registering")
        held = [c for c in certificates(self.registry.path / FILE)
                if c["model"].get("name") == self.name and c["model"].get("cycle") == cycle.number]
        certificate = held[0] if held else self._certify(cycle, version)
        cycle = self.cycles.save(cycle, self.now(), step="registered", version=version, certificate=certificate)
        self._say(cycle, "registered", version=version, certificate=certificate["verdict"])
        return cycle

    def _certify(self, cycle: Cycle, version: int) -> dict[str, Any]:
        artefact = self.registry.get(self.name, version)
        data, _, part, _ = self.bench.parts(cycle, artefact.card)
        plan = fallback_plan(cycle.active, self.rule_names, self.learn.accuracy_floor)
        about = {"name": self.name, "version": version, "digest": artefact.digest, "cycle": cycle.number, "data": cycle.data}
        o, rules = outcomes_of(data, artefact, part, "candidate"), self.bench.given(artefact.card).rules
        return certify(self.registry.path / FILE, about, o, rules, self.learn.limits, plan, self.now())

    def _shadow(self, cycle: Cycle) -> Cycle:
        failed = [v["gate"] for v in cycle.verdicts if v["stage"] == EVALUATION and v["outcome"] == "failed"]
        if failed:
            return self._end(cycle, REFUSED, f"refused by {', '.join(failed)}", step="decided", recommendation="do not promote")
        self.registry.shadow(self.name, cycle.version, reason=f"cycle {cycle.number}: passed evaluation", actor=ACTOR)
        self.step("shadowing")
        candidate = self.registry.get(self.name, cycle.version)
        data, _, part, rest = self.bench.parts(cycle, candidate.card)
        if self.feed is None:
            shadow: Outcomes | None = outcomes_of(data, candidate, rest, "candidate")
            active, _ = self.bench.other(cycle, candidate.card, data, rest)
        else:
            seen = self.feed.seen(cycle.active, cycle.version, 0)
            shadow, active = paired(seen.shadow, seen.active)
        have = len(shadow) if shadow is not None else 0
        if shadow is None or (self.feed is not None and have < self.learn.shadow_rows):
            return self.cycles.save(cycle, self.now(), status=WAITING, reason=f"{have:,} of {self.learn.shadow_rows:,} scores in shadow")
        found = shadow_figures(shadow, active, outcomes_of(data, candidate, part, "candidate"), self.learn)
        judged = verdicts(SHADOW, found, self.learn)
        cycle = self.cycles.save(cycle, self.now(), step="shadowed", status=RUNNING, figures={**cycle.figures, **found},
                                 verdicts=[v for v in cycle.verdicts if v["stage"] != SHADOW] + [asdict(v) for v in judged])
        self._say(cycle, "shadowed", rows=len(shadow), gates={v.gate: v.outcome for v in judged}, failed=refused_by(judged))
        return cycle

    def _decide(self, cycle: Cycle) -> Cycle:
        failed = [v["gate"] for v in cycle.verdicts if v["outcome"] == "failed"]
        if failed:
            return self._end(cycle, REFUSED, f"refused by {', '.join(failed)}", step="decided", recommendation="do not promote")
        if self.learn.approve and not cycle.approved:
            reason = f"every gate passed; `penstock learn --approve --name {self.name}` promotes version {cycle.version}"
            return self.cycles.save(cycle, self.now(), status=APPROVAL, recommendation="promote", reason=reason)
        active = self._active()
        if active not in (cycle.active, cycle.version):
            return self._end(cycle, ABORTED, f"version {active} became active meanwhile, and this one was judged against "
                                             f"{cycle.active or 'none'}")
        self.registry.promote(self.name, cycle.version, reason=f"cycle {cycle.number}: every gate passed", actor=ACTOR)
        self.step("promoting")
        return self._end(cycle, PROMOTED, "every gate passed", step="decided", recommendation="promote")

    def _end(self, cycle: Cycle, status: str, reason: str, **changes: Any) -> Cycle:
        if status != PROMOTED and cycle.version and self.registry.version(self.name, cycle.version).state == "SHADOW":
            self.registry.retire(self.name, cycle.version, reason=f"cycle {cycle.number}: {status}: {reason}", actor=ACTOR)
        cycle = self.cycles.save(cycle, self.now(), status=status, reason=reason, **changes)
        self._say(cycle, status, reason=reason, version=cycle.version)
        return cycle

    # beside the steps

    def _watch(self) -> dict[str, Any]:
        """Judge the version in use by what came true since it was promoted; go back, or leave it to the rules, where it has to be."""
        found = watch(self.registry, self.name, self._active(), self.feed, self.bench, self.learn, self.now())
        version, action = found["version"], found["action"]
        if action == "rollback":
            self.registry.rollback(self.name, reason=f"watch: {found['why']}", actor=ACTOR)
        elif action == "rules":
            self.registry.retire(self.name, version, reason=f"watch: {found['why']}", actor=ACTOR)
        if action != "keep":
            self.tell({"event": action, "name": self.name, "version": version, "why": found["why"]})
        return found

    def _report(self, cycle: Cycle) -> None:
        write_cycle_report(cycle, self.cycles.folder(cycle.number))

    def _halting(self, what: str) -> Callable[[int, int], None]:
        """Progress that ends the step where somebody asked to stop."""
        def told(done: int, total: int) -> None:
            self.progress(what, done, total)
            if self.stopping():
                raise Stopped(f"stopped while {what}; it begins that again with the next penstock learn")
        return told

    def _say(self, cycle: Cycle, event: str, **rest: Any) -> None:
        self.tell({"event": event, "name": self.name, "cycle": cycle.number, **rest})
