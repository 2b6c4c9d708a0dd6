"""The model registry: numbered versions of trained models, which of them is live from when, and their files.

A version never changes once it has a number; which one is live is decided by events, and events are never changed or deleted, so what
was live at a moment has one answer for ever, unless somebody backdates. Several processes may use a registry at the same time.
"""

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from research.learning.registry_database import BUSY_S, VERSION_FIELDS, Database, add_event, add_version, events_of, names_of
from research.learning.registry_events import Event, Standing, ordered, promotion_rows, standing, stretch
from research.learning.registry_files import Journal, VersionFiles
from schemas.artefact import Artefact, Artefacts, card_json, card_of
from schemas.errors import PenstockError, UserError, unknown
from schemas.ids import id_text, name_id
from schemas.tables import Rows

HOME = Path(".penstock") / "models"
VARIABLE = "PENSTOCK_MODELS"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


@dataclass(frozen=True)
class Version:
    """A version as the registry knows it. parent: the version that it was trained to replace, 0: none. pruned: only its card is kept."""

    name: str
    version: int
    digest: str
    model: str
    task: str
    tag: str
    parent: int
    created_ns: int
    pruned: bool
    state: str
    metrics: Mapping[str, Any] = field(default_factory=dict)


def check_words(name: str, tag: str = "") -> None:
    """UserError where a name or a tag cannot be kept; asked before hours of training, and again when they are kept."""
    if not _NAME.fullmatch(name):
        raise UserError(f'model "{name}": a name in the registry has a to z, 0 to 9 and _, begins with a letter, is at most 48')
    if tag and (not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", tag) or tag.isdigit()):
        raise UserError(f'tag "{tag}": use letters, digits, ".", "_" and "-", at most 48, and not digits alone')


class Registry:
    """A registry in a folder, which is made when the first version is registered. step: called at each step of what is written, for tests
    that kill the process there."""

    def __init__(self, path: str | Path = HOME, *, busy_s: float = BUSY_S, clock: Callable[[], int] = time.time_ns,
                 step: Callable[[str], None] = lambda label: None) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: not a folder; give the folder of a registry")
        self._db, self._files, self._journal = Database(self.path, busy_s), VersionFiles(self.path), Journal(self.path)
        self._clock, self._step = clock, step

    @classmethod
    def open(cls, path: str | Path | None = None) -> "Registry":
        """The registry in this folder, else in that of PENSTOCK_MODELS, else in .penstock/models."""
        return cls(path or os.environ.get(VARIABLE) or HOME)

    # versions

    def register(self, artefact: Artefact, tag: str = "", metrics: Mapping[str, Any] | None = None, parent: int | None = None) -> int:
        """Keep an artefact as the next version of its name, and give the number. tag, metrics and parent become part of its card."""
        card = artefact.card
        check_words(card.name, tag)
        with self._db.writing() as db:
            self._step("register_locked")
            version = db.execute("SELECT coalesce(max(version), 0) + 1 FROM versions WHERE name = ?", (card.name,)).fetchone()[0]
            if parent is not None and not 1 <= parent < version:
                raise UserError(f"parent {parent}: {card.name} has no such version")
            about = {**card.about, "tag": tag, "parent": parent or 0, "metrics": {**card.about.get("metrics", {}), **(metrics or {})}}
            numbered = replace(card, version=version, about=about)
            made = Artefact(card_of(card_json(numbered), card.name), artefact.payload)  # as it will be read
            self._files.write(made, self._step)
            add_version(db, made.card, made.digest, self._clock())
            self._step("register_inserted")
        self._step("register_committed")
        return int(version)

    def names(self) -> list[str]:
        """Names of models, sorted."""
        with self._db.reading() as db:
            return names_of(db)

    def versions(self, name: str, ts_ns: int | None = None) -> list[Version]:
        """All versions of a name with the states that they have at a time; without one, now."""
        with self._db.reading() as db:
            rows = db.execute(f"SELECT {VERSION_FIELDS} FROM versions WHERE name = ? ORDER BY version", (name,)).fetchall()
            if not rows:
                raise self._unknown(db, name)
            events = events_of(db, name)
            at = standing(events, self._now(events) if ts_ns is None else ts_ns)
        return [Version(name, v, digest, model, task, tag, parent, created, bool(pruned), at.state(v), json.loads(metrics))
                for _, v, digest, model, task, tag, parent, metrics, created, pruned in rows]

    def version(self, name: str, version: int) -> Version:
        """One of them; UserError where there is none."""
        known = {v.version: v for v in self.versions(name)}
        if version not in known:
            raise UserError(f"{name} has no version {version}; it has {_range(known)}")
        return known[version]

    def resolve(self, name: str, reference: str | None = None) -> int:
        """The version that a number or a tag means (of several with one tag, the latest); without one, the active one, else the latest."""
        known = self.versions(name)
        if not reference:
            active = [v.version for v in known if v.state == "ACTIVE"]
            return active[0] if active else known[-1].version
        if reference.isdigit():
            return self.version(name, int(reference)).version
        tagged = [v.version for v in known if v.tag == reference]
        if tagged:
            return tagged[-1]
        tags = {v.tag for v in known if v.tag}
        if not tags:
            raise UserError(f'{name} has no version with tag "{reference}", nor with any; it has {_range([v.version for v in known])}')
        raise unknown(f"tag of {name}", reference, tags)

    def get(self, name: str, version: int) -> Artefact:
        """The artefact, verified; PenstockError that names the file where it is missing, damaged, pruned, or of a newer format."""
        return self._files.read(name, version, self.version(name, version).digest)

    def artefacts(self) -> Artefacts:
        """The registry as a pipeline asks it: by hash of the name."""
        return _ByIds(self)

    def prune(self, keep: int = 10) -> list[tuple[str, int]]:
        """Delete the models of all but the latest `keep` versions of each name; cards and records stay. Never of one that is or will be in
        force, or that a rollback would go to. Gives what was pruned. A replay of a time when such a one was live fails, and says so."""
        if keep < 1:
            raise UserError(f"--keep {keep}: at least 1")
        out = []
        with self._db.writing() as db:
            for name in names_of(db):
                events = events_of(db, name)
                now = self._now(events)
                moments = [now, *(e.effective_ns for e in events if e.effective_ns > now)]
                needed = set[int]()
                for at in (standing(events, ts_ns) for ts_ns in moments):
                    needed |= {e.version for e in (at.active, at.shadow) if e is not None} | {at.before}
                kept = [v for v, in db.execute("SELECT version FROM versions WHERE name = ? AND NOT pruned ORDER BY version", (name,))]
                for version in [v for v in kept[:-keep] if v not in needed]:
                    db.execute("UPDATE versions SET pruned = 1 WHERE name = ? AND version = ?", (name, version))
                    out.append((name, version))
            for name, version in out:
                self._files.prune(name, version)
        return out

    # events

    def promote(self, name: str, version: int, effective_ns: int | None = None, reason: str = "", actor: str = "",
                backdate: bool = False) -> Event:
        """Make a version ACTIVE from a time on (without one, from now); the one before it is RETIRED then. Where it is ACTIVE already and
        no time is given, nothing is added and the event that made it so is given. An artefact that cannot be read is refused."""
        return self._add("activate", name, version, effective_ns, reason, actor, backdate)

    def shadow(self, name: str, version: int, effective_ns: int | None = None, reason: str = "", actor: str = "",
               backdate: bool = False) -> Event:
        """Let a version predict beside the active one; another that did so is CANDIDATE again."""
        return self._add("shadow", name, version, effective_ns, reason, actor, backdate)

    def retire(self, name: str, version: int, effective_ns: int | None = None, reason: str = "", actor: str = "",
               backdate: bool = False) -> Event:
        """Take a version out; where it was the active one, none is active afterwards and the model abstains."""
        return self._add("retire", name, version, effective_ns, reason, actor, backdate)

    def rollback(self, name: str, effective_ns: int | None = None, reason: str = "", actor: str = "", backdate: bool = False,
                 to: int | None = None) -> Event:
        """Go back to the version that was active before, or to a RETIRED one that is named. A second rollback goes one further back."""
        return self._add("rollback", name, to or 0, effective_ns, reason, actor, backdate)

    def _add(self, action: str, name: str, version: int, effective_ns: int | None, reason: str, actor: str, backdate: bool) -> Event:
        verb = {"activate": "promote"}.get(action, action)
        if action != "rollback" or version:
            self.version(name, version)
        with self._db.writing() as db:
            self._step(f"{verb}_locked")
            every = events_of(db)
            self._journal.follow(every)
            mine = [e for e in every if e.name == name]
            now = self._now(mine)
            when = _free(mine, now if effective_ns is None else effective_ns)
            at = standing(mine, when)
            if effective_ns is None and (done := _done(at, action, version)):
                return done
            if when < now and not backdate:
                raise UserError(f"{np.datetime64(when, 'ns')} is in the past: it would change which version a replay of what was since "
                                "then uses; leave the time away, or say --backdate if that is wanted")
            version = version or self._before(db, name, at)
            digest = db.execute("SELECT digest FROM versions WHERE name = ? AND version = ?", (name, version)).fetchone()[0]
            decided = when if effective_ns is None else now
            event = Event(len(every) + 1, name, version, action, when, decided, reason, actor, digest)
            _check(mine, event)
            if action != "retire":
                self._files.read(name, version, digest)
            add_event(db, event)
            self._step(f"{verb}_inserted")
            self._journal.append(event)
            self._step(f"{verb}_journalled")
        self._step(f"{verb}_committed")
        return event

    def _now(self, mine: list[Event]) -> int:
        """The wall clock, which does not go back behind what was decided by it."""
        return max([self._clock(), *(e.effective_ns for e in mine if e.effective_ns <= e.recorded_ns)])

    def _before(self, db: sqlite3.Connection, name: str, at: Standing) -> int:
        if name not in names_of(db):
            raise self._unknown(db, name)
        if not at.before:
            raise UserError(f"{name}: no version was active before"
                            + (f" version {at.active.version}" if at.active else "; promote one: penstock model promote"))
        return at.before

    def history(self, name: str) -> list[Event]:
        """All events of a name, in the order of the time from which they hold."""
        with self._db.reading() as db:
            if name not in names_of(db):
                raise self._unknown(db, name)
            return ordered(events_of(db, name))

    def active_at(self, name: str, ts_ns: int | None = None) -> int:
        """The version that is ACTIVE at a time, inclusive; without one, now; 0: none."""
        events = self.history(name)
        active = standing(events, self._now(events) if ts_ns is None else ts_ns).active
        return 0 if active is None else active.version

    def promotions(self, names: Iterable[str], ts_from: int | None = None, ts_to: int | None = None) -> Rows:
        """Rows of PROMOTIONS of these models from a time to a time (exclusive), by time; first, with times of their own, those that put
        into force what is active and in shadow as the stretch begins."""
        return promotion_rows(e for name in sorted(set(names)) for e in stretch(self.history(name), ts_from, ts_to))

    def unpublished(self, target: str) -> tuple[list[Event], int]:
        """Events that a target, such as a topic, has not been given, and the number that it is up to date with once it has them. A new
        target begins with what is in force."""
        with self._db.reading() as db:
            every = events_of(db)
            number = every[-1].number if every else 0
            found = db.execute("SELECT number FROM published WHERE target = ?", (target,)).fetchone()
            if found is not None:
                return [e for e in every if e.number > found[0]], number
            by_name = [[e for e in every if e.name == name] for name in names_of(db)]
            return ordered(e for mine in by_name for e in stretch(mine, self._now(mine) + 1, None)), number

    def mark_published(self, target: str, number: int) -> None:
        """The target has all events up to this number."""
        with self._db.writing() as db:
            db.execute("INSERT INTO published VALUES (?, ?) ON CONFLICT (target) DO UPDATE SET number = max(number, excluded.number)",
                       (target, number))

    def _unknown(self, db: sqlite3.Connection, name: str) -> UserError:
        names = names_of(db)
        if not names:
            return UserError(f'no model "{name}": there are none in the registry {self.path}; penstock model train makes one')
        return unknown(f"model in {self.path}", name, names)


def _range(versions: Collection[int]) -> str:
    low, high = min(versions), max(versions)
    return f"{low} to {high}" if high > low else str(low)


def _done(at: Standing, action: str, version: int) -> Event | None:
    """The event that has done already what is asked for."""
    held = {"activate": at.active, "shadow": at.shadow}.get(action)
    return held if held is not None and held.version == version else None


def _free(mine: list[Event], when: int) -> int:
    """The moments of one name are all different, so that time alone is their order: one that is taken becomes the next nanosecond."""
    taken = {e.effective_ns for e in mine}
    while when in taken:
        when += 1
    return when


def _check(mine: list[Event], event: Event) -> None:
    """UserError where the event is not legal when it holds, or makes one that comes after it so."""
    standing([*mine, event], event.effective_ns)
    try:
        standing([*mine, event])
    except UserError as error:
        raise UserError(f"a later event, decided already, would not be legal any more: {error}") from None


class _ByIds:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get(self, model_id: int, version: int) -> Artefact:
        for name in self._registry.names():
            if name_id(name) == model_id:
                return self._registry.get(name, version)
        raise PenstockError(f"no model with id {id_text(model_id)} in the registry {self._registry.path}")
