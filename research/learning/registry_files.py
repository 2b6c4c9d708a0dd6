"""The files of a registry: a folder per version, and a journal of events from which a lost database is made again.

A version's folder has its name only once everything in it is on disk, and its model and card never change. The caller holds the
registry's write lock. The journal is written before the database commits, so it may be one line ahead after a kill, and never behind.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from research.learning.registry_events import Event
from schemas.artefact import Artefact, card_json, card_of
from schemas.errors import PenstockError

DATABASE = "registry.sqlite3"
JOURNAL = "events.jsonl"
MODEL, CARD, DIGEST, PRUNED = "model.bin", "card.json", "digest", "pruned"
_INCOMING, _LOST = ".incoming", ".lost"


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class VersionFiles:
    """The folders `NAME/NUMBER` under a root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, version: int) -> Path:
        """Where a version lies."""
        return self.root / name / f"{version:08d}"

    def found(self) -> list[tuple[str, int]]:
        """Every version that has a folder, by name and number."""
        paths = [p for p in self.root.glob("*/[0-9]*") if p.name.isdigit() and p.is_dir() and not p.parent.name.startswith(".")]
        return sorted((p.parent.name, int(p.name)) for p in paths)

    def write(self, artefact: Artefact, step: Callable[[str], None]) -> None:
        """All or nothing. What a kill left over is put aside, not deleted: only a database can say that it was never registered."""
        incoming, target = self.root / _INCOMING, self.folder(artefact.card.name, artefact.card.version)
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        (incoming / MODEL).write_bytes(artefact.payload)
        step("register_payload")
        (incoming / CARD).write_text(card_json(artefact.card) + "\n", encoding="utf-8")
        (incoming / DIGEST).write_text(artefact.digest + "\n", encoding="ascii")
        for path in (incoming / MODEL, incoming / CARD, incoming / DIGEST, incoming):
            sync(path)
        step("register_written")
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            lost = self.root / _LOST
            lost.mkdir(exist_ok=True)
            target.rename(lost / f"{artefact.card.name}-{artefact.card.version}-{len(list(lost.iterdir()))}")
        incoming.rename(target)
        sync(target.parent)
        sync(self.root)
        step("register_renamed")

    def read(self, name: str, version: int, digest: str) -> Artefact:
        """The artefact, whose digest is that one; PenstockError that names the file where it is missing, changed, pruned or too new."""
        folder = self.folder(name, version)
        way_out = f"put it back from a backup, or use another version (penstock model list --name {name})"
        if (folder / PRUNED).exists():
            raise PenstockError(f"{folder / MODEL}: pruned, only its card is kept; use another version (penstock model list --name {name})")
        try:
            card = card_of((folder / CARD).read_text(encoding="utf-8"), str(folder / CARD))
            payload = (folder / MODEL).read_bytes()
        except UnicodeDecodeError:
            raise PenstockError(f"{folder / CARD}: not text; the file was damaged; {way_out}") from None
        except OSError as error:
            raise PenstockError(f"{error.filename}: {error.strerror}; {way_out}") from None
        found = Artefact(card, payload)
        if found.digest != digest:
            raise PenstockError(f"{folder}: {MODEL} or {CARD} is not what was registered: the digest is {found.digest[:16]}… and should be "
                                f"{digest[:16]}…; {way_out}")
        return found

    def written_digest(self, name: str, version: int) -> str:
        """The digest that was written beside the files; empty where there is none."""
        try:
            return (self.folder(name, version) / DIGEST).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def prune(self, name: str, version: int) -> int:
        """Delete the model and keep its card; bytes that this freed."""
        folder = self.folder(name, version)
        size = (folder / MODEL).stat().st_size if (folder / MODEL).exists() else 0
        (folder / PRUNED).touch()
        sync(folder)
        (folder / MODEL).unlink(missing_ok=True)
        return size


class Journal:
    """Every event, one line of JSON each, in the order of their numbers."""

    def __init__(self, root: Path) -> None:
        self.path = root / JOURNAL

    def events(self) -> list[Event]:
        """What it holds; the torn line that a kill leaves at the end is not an event. PenstockError where another line is none."""
        if not self.path.exists():
            return []
        out = []
        for k, line in enumerate(self._whole().splitlines(), 1):
            try:
                out.append(Event(**json.loads(line)))
            except (ValueError, TypeError):
                raise PenstockError(f"{self.path} line {k}: not an event; the file was damaged; put it back from a backup") from None
        return out

    def _whole(self) -> bytes:
        data = self.path.read_bytes()
        return data[: data.rfind(b"\n") + 1]

    def follow(self, committed: Sequence[Event]) -> None:
        """Make it end where the database does; PenstockError where the database lacks more than the one event that a kill leaves."""
        held = self.events()
        if len(held) > len(committed) + 1 or held[: len(committed)] != list(committed[: len(held)]):
            raise PenstockError(f"{self.path}: has other events than {DATABASE} beside it, which is older or was changed; "
                                "penstock model repair makes it again from the files")
        if held != list(committed) or self._torn():
            part = self.path.with_suffix(".part")
            part.write_text("".join(_line(e) for e in committed), encoding="utf-8")
            sync(part)
            part.replace(self.path)
            sync(self.path.parent)

    def _torn(self) -> bool:
        return self.path.exists() and self.path.stat().st_size != len(self._whole())

    def append(self, event: Event) -> None:
        """On disk when this returns."""
        new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(_line(event).encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync(self.path.parent)


def _line(event: Event) -> str:
    return json.dumps(asdict(event), separators=(",", ":")) + "\n"
