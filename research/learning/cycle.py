"""A learning cycle as it lies on disk: what step it is at and all that was found, in one JSON file that is replaced as a whole.

Killed at any moment, the file is that of the last step that was finished; the step after it can be done again. The folder
`.cycles/NAME/NUMBER` under the registry also holds the candidate until it is registered, and the report.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from research.learning.governance import canonical_json
from research.learning.registry_files import sync
from schemas.artefact import Artefact, card_json, card_of
from schemas.errors import PenstockError, UserError

STEPS = ("triggered", "trained", "evaluated", "registered", "shadowed", "decided")
"""What was finished last. triggered: nothing yet but the reason to begin. decided: promoted, refused or aborted; nothing is left to do."""
RUNNING, WAITING, APPROVAL = "running", "waiting for scores in shadow", "waiting for approval"
PROMOTED, REFUSED, ABORTED = "promoted", "refused", "aborted"
OVER = (PROMOTED, REFUSED, ABORTED)
STATE = "state.json"


@dataclass(frozen=True)
class Cycle:
    """One cycle. data: what it learns from: from, train_to, evaluate_to and to in event time, rows and hash. version: 0 until registered.
    active: the version that was active when it began, 0: none. verdicts: of all gates that were asked."""

    name: str
    number: int
    started_ns: int
    step: str = "triggered"
    status: str = RUNNING
    updated_ns: int = 0
    active: int = 0
    version: int = 0
    reason: str = ""
    recommendation: str = ""
    approved: bool = False
    triggers: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    certificate: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.status in OVER


class Cycles:
    """The cycles of one model."""

    def __init__(self, registry: Path, name: str) -> None:
        self.root = registry / ".cycles" / name
        self.name = name

    @property
    def triggers_path(self) -> Path:
        return self.root / "triggers.jsonl"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One manager of a model at a time; UserError where another is at work. The lock goes with the process, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another `penstock learn` is at work on {self.name}; wait for it, or stop it") from None
            yield

    def folder(self, number: int) -> Path:
        return self.root / f"{number:06d}"

    def numbers(self) -> list[int]:
        """Cycles that have a state, ascending."""
        return sorted(int(p.parent.name) for p in self.root.glob(f"[0-9]*/{STATE}"))

    def last(self) -> Cycle | None:
        """The latest."""
        numbers = self.numbers()
        return self.load(numbers[-1]) if numbers else None

    def load(self, number: int) -> Cycle:
        path = self.folder(number) / STATE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known = {f.name for f in fields(Cycle)}
            return Cycle(**{k: v for k, v in found.items() if k in known})
        except (OSError, ValueError, TypeError, AttributeError):
            raise PenstockError(f"{path}: not the state of a cycle; the file was damaged; delete its folder to begin a new cycle") from None

    def save(self, cycle: Cycle, now_ns: int, **changes: Any) -> Cycle:
        """The cycle with these changes, on disk when this returns."""
        made = replace(cycle, updated_ns=now_ns, **changes)
        folder = self.folder(made.number)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / STATE, canonical_json(asdict(made)) + "\n")
        if made.over:
            shutil.rmtree(folder / "candidate", ignore_errors=True)
        return made

    def keep(self, number: int, artefact: Artefact) -> None:
        """Put the candidate beside the state, all or nothing."""
        target, part = self.folder(number) / "candidate", self.folder(number) / ".candidate"
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "model.bin").write_bytes(artefact.payload)
        (part / "card.json").write_text(card_json(artefact.card), encoding="utf-8")
        for path in (part / "model.bin", part / "card.json", part):
            sync(path)
        part.rename(target)
        sync(target.parent)

    def candidate(self, number: int) -> Artefact:
        """What was kept."""
        folder = self.folder(number) / "candidate"
        try:
            return Artefact(card_of((folder / "card.json").read_text(encoding="utf-8"), str(folder / "card.json")),
                            (folder / "model.bin").read_bytes())
        except OSError as error:
            raise PenstockError(f"{error.filename}: {error.strerror}; abort the cycle: penstock learn --abort --name {self.name}") from None


def write_whole(path: Path, text: str) -> None:
    """Write beside, sync, and put in place in one step."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)
