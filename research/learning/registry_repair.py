"""A registry's database made again from the versions' folders and the journal of events, and every file checked on the way.

Nothing is deleted: the database that was there is put aside. A version whose files are not what was registered is kept, with the digest
that was written when it was, and refused whenever it is asked for.
"""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from research.learning.registry_database import BUSY_S, REPAIR, Database, add_event, add_version, create, events_of
from research.learning.registry_events import Event, standing
from research.learning.registry_files import CARD, DATABASE, MODEL, PRUNED, Journal, VersionFiles, sync
from schemas.artefact import Artefact, Card, card_of
from schemas.config_models import LabelConfig
from schemas.errors import PenstockError, UserError

Key = tuple[str, int]
"""A model's name and the number of a version."""


@dataclass(frozen=True)
class Repaired:
    """What a repair found. rebuilt: whether the database was made again. trouble: one line for each version that is not as registered, or
    that could not be taken back."""

    rebuilt: bool
    versions: int
    events: int
    put_aside: str
    trouble: tuple[str, ...]


def repair(path: str | Path, busy_s: float = BUSY_S) -> Repaired:
    """Check a registry; where its database is missing, damaged or behind its files, make it again. Nothing else may use it meanwhile."""
    root = Path(path)
    files, journal = VersionFiles(root), Journal(root)
    found = files.found()
    if not found and not (root / DATABASE).exists():
        raise UserError(f"{root}: no registry is there; name its folder with --registry")
    known = _whole(Database(root, busy_s), found, journal)
    if known is not None:
        return Repaired(False, len(known[0]), known[1], "", tuple(_wrong(files, known[0])))
    events = journal.events()
    made = root / f".{DATABASE}.repaired"
    made.unlink(missing_ok=True)
    create(made)
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("BEGIN")
        digests, trouble = _versions(db, files, found, events)
        for name in sorted({e.name for e in events}):
            try:
                standing([e for e in events if e.name == name])
            except UserError as error:
                raise PenstockError(f"{journal.path}: its events contradict each other ({error}); put it back from a backup") from None
        for event in events:
            add_event(db, event)
        db.execute("COMMIT")
    sync(made)
    aside = _aside(root)
    made.replace(root / DATABASE)
    sync(root)
    journal.follow(events)
    return Repaired(True, len(digests), len(events), aside, (*trouble, *_wrong(files, digests)))


def _whole(database: Database, found: list[Key], journal: Journal) -> tuple[dict[Key, str], int] | None:
    """Versions with digests and the number of events of a database that is whole and has all that the files have; None where it is not."""
    try:
        with database.reading() as db:
            versions = {(name, v): digest for name, v, digest in db.execute("SELECT name, version, digest FROM versions")}
            events = events_of(db)
    except PenstockError as error:
        if REPAIR in str(error):
            return None
        raise
    try:
        held = journal.events()
    except PenstockError:
        held = []  # the database has them all
    if not set(found) <= set(versions) or len(held) > len(events):
        return None
    if held != events:
        journal.path.unlink(missing_ok=True)
        journal.follow(events)
    return versions, len(events)


def _versions(db: sqlite3.Connection, files: VersionFiles, found: list[Key], events: list[Event]) -> tuple[dict[Key, str], list[str]]:
    """Record every version that has a folder or an event; their digests, and what could not be read."""
    digests, trouble = {(e.name, e.version): e.digest for e in events}, []
    for name, version in sorted({*found, *digests}):
        folder = files.folder(name, version)
        card_path = folder / CARD
        digest = digests.get((name, version)) or files.written_digest(name, version)
        try:
            card = card_of(card_path.read_text(encoding="utf-8"), str(card_path))
            created_ns = card_path.stat().st_mtime_ns
            if (card.name, card.version) != (name, version):
                raise PenstockError(f"{card_path}: is the card of {card.name} version {card.version}")
        except (OSError, UnicodeDecodeError, PenstockError) as error:
            trouble.append(f"{name} version {version}: kept as a number only: {error}")
            card, created_ns = Card(name, version, "", "", 0, (), LabelConfig()), 0
        if not digest:
            try:
                digest = Artefact(card, (folder / MODEL).read_bytes()).digest
                trouble.append(f"{name} version {version}: its digest was lost and is taken from the files as they are")
            except OSError:
                pass  # said by whoever verifies
        add_version(db, card, digest, created_ns, (folder / PRUNED).exists())
        digests[name, version] = digest
    return digests, trouble


def _wrong(files: VersionFiles, digests: dict[Key, str]) -> list[str]:
    """A line for each version that cannot be used, pruned ones aside."""
    out = []
    for (name, version), digest in sorted(digests.items()):
        if not (files.folder(name, version) / PRUNED).exists():
            try:
                files.read(name, version, digest)
            except PenstockError as error:
                out.append(f"{name} version {version}: {error}")
    return out


def _aside(root: Path) -> str:
    """Put away the database that was there, with what SQLite keeps beside it and would apply to the new one."""
    number = 1
    while (root / f"{DATABASE}.{number}.damaged").exists():
        number += 1
    target = root / f"{DATABASE}.{number}.damaged"
    for tail in ("-wal", "-shm"):
        beside = root / f"{DATABASE}{tail}"
        if beside.exists():
            beside.replace(root / f"{target.name}{tail}")
    if not (root / DATABASE).exists():
        return ""
    (root / DATABASE).replace(target)
    return str(target)
