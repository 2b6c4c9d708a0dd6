"""A trained model as it lies in the registry and as the pipeline is given it: bytes, and a card that says what they are.

The digest is the BLAKE3 of the model's bytes and the card, so a version that was changed on disk is not the version that was promoted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from blake3 import blake3

from schemas.config_models import LabelConfig, label_document, parse_label
from schemas.errors import PenstockError
from schemas.intervals import interval_text, parse_interval

FORMAT = 1
"""Version of the card. A reader refuses one that is newer than itself."""


@dataclass(frozen=True)
class Card:
    """What a trained model is. model: `lightgbm` or `xgboost`. features: columns in the order of the matrix. edges, shares: per feature the
    inner edges of its bins in the training window and the share of rows in each bin, for drift. about: data range and hash, parameters,
    metrics, lineage, seed, code version; read by people and by `penstock model diff`, never by the pipeline."""

    name: str
    version: int
    model: str
    task: str
    interval_ns: int
    features: tuple[str, ...]
    label: LabelConfig
    edges: tuple[tuple[float, ...], ...] = ()
    shares: tuple[tuple[float, ...], ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feature_hash(self) -> str:
        """Hash of timeframe and columns, in their order."""
        return blake3(repr((self.interval_ns, self.features)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artefact:
    """A card with the model's bytes."""

    card: Card
    payload: bytes

    @property
    def digest(self) -> str:
        """64 hex digits over card and bytes."""
        return blake3(card_json(self.card).encode() + b"\n" + self.payload).hexdigest()

    @property
    def digest_id(self) -> int:
        """Its first eight bytes, as promotions carry it."""
        return int(self.digest[:16], 16)


class Artefacts(Protocol):
    """Where the pipeline gets artefacts from; the same id and version give the same bytes for ever."""

    def get(self, model_id: int, version: int) -> Artefact:
        """The artefact; PenstockError where it is missing, damaged, or of a newer format."""
        ...


def card_json(card: Card) -> str:
    """One line of JSON with sorted keys; `card_of` reads it."""
    return json.dumps({
        "format": FORMAT, "name": card.name, "version": card.version, "model": card.model, "task": card.task,
        "interval": interval_text(card.interval_ns), "features": list(card.features), "label": label_document(card.label),
        "edges": [list(e) for e in card.edges], "shares": [list(s) for s in card.shares], "about": dict(card.about),
    }, sort_keys=True, separators=(",", ":"))


def card_of(text: str, where: str) -> Card:
    """A card from JSON; PenstockError that names the file where it is not one, or newer than this program."""
    try:
        d = json.loads(text)
        found = int(d["format"])
    except (ValueError, KeyError, TypeError):
        raise PenstockError(f"{where}: not the card of a model; the file was damaged") from None
    if found > FORMAT:
        raise PenstockError(f"{where}: written in format {found}, and this version reads up to {FORMAT}; update penstock")
    try:
        return Card(
            str(d["name"]), int(d["version"]), str(d["model"]), str(d["task"]), parse_interval(d["interval"], where), tuple(d["features"]),
            parse_label(d["label"], where), tuple(tuple(map(float, e)) for e in d["edges"]),
            tuple(tuple(map(float, s)) for s in d["shares"]), d["about"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PenstockError(f"{where}: not the card of a model ({error}); the file was damaged") from None
