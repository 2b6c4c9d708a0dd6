"""Where fetched history is kept while it comes: parts, a checkpoint that is replaced whole, and at the end one Parquet file.

Killed at any moment, what the checkpoint names is there and the rest is fetched again. The finished file has the columns that
`penstock replay` reads, in order, every row once; `gaps.json` beside it lists what the exchange did not have.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.codec import arrow_schema, from_arrow, to_arrow
from schemas.errors import PenstockError, UserError
from schemas.tables import Rows
from sources.history_pages import Hole, Pages
from sources.rows import number_rows

GAPS = "gaps.json"
_WORK = ".fetching"


class Store:
    """What is kept of one symbol. identity: what is fetched; a checkpoint of something else is a UserError."""

    def __init__(self, out: Path, stem: str, identity: Mapping[str, Any]) -> None:
        self.path, self.stem = out / f"{stem}.parquet", stem
        self._work = out / _WORK / stem
        self._checkpoint = self._work / "checkpoint.json"
        self._gaps = out / GAPS
        self.state: dict[str, Any] = {"identity": dict(identity), "cursor": None, "rows": 0, "parts": [], "last": None, "holes": [],
                                      "asked": False, "done": False}
        self._load(identity)

    def _load(self, identity: Mapping[str, Any]) -> None:
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            if not self._checkpoint.exists():
                if self.path.exists():
                    raise UserError(f"{self.path} exists already and was not fetched by this command; choose another --out")
                return
            kept = json.loads(self._checkpoint.read_text())
        except OSError as error:
            raise UserError(f"{self._work}: {error.strerror}; choose another --out") from None
        except ValueError:
            raise UserError(f"{self._checkpoint}: is damaged; remove {self._work} to fetch again") from None
        before = {k: v for k, v in kept["identity"].items() if identity.get(k) is not None}
        if before != {k: v for k, v in identity.items() if v is not None}:
            differs = next(k for k in identity if identity[k] is not None and kept["identity"].get(k) != identity[k])
            raise UserError(f"{self.path}: was begun with {differs} {kept['identity'].get(differs)}, not {identity[differs]}; "
                            "choose another --out, or the same")
        if kept["done"] and not self.path.exists():
            shutil.rmtree(self._work)
            self._work.mkdir(parents=True)
            return
        self.state = kept

    def keep(self, pages: Pages, rows: Rows, cursor: Mapping[str, int]) -> None:
        """Rows that follow those before, and where to go on: both are there or neither."""
        state = self.state
        if len(rows):
            keys = pages.key(rows)
            if state["last"] is not None and (pages.by_id or pages.what == "candles"):
                rows = rows[keys > state["last"]]
        if len(rows):
            keys = pages.key(rows)
            if pages.by_id or pages.what == "candles":
                rows = rows[np.unique(keys, return_index=True)[1]]
            state["holes"] += [[h.first, h.end, h.missing] for h in pages.holes(state["last"], rows)]
            name = f"{len(state['parts']):06d}.parquet"
            self._write(self._work / name, [to_arrow(pages.spec, rows, (pages.symbol,))], pages)
            state["parts"].append(name)
            state["rows"] += len(rows)
            state["last"] = int(pages.key(rows)[-1])
        state["cursor"] = dict(cursor)
        self.save()

    def save(self) -> None:
        """The checkpoint, replaced whole."""
        _replace(self._checkpoint, json.dumps(self.state))

    def finish(self, pages: Pages, extra: Rows, holes: list[Hole]) -> None:
        """The file, made of the parts and what was found when holes were asked for again."""
        extra = extra[np.argsort(pages.key(extra), kind="stable")]
        if self.state["rows"] + len(extra):
            self._write(self.path, self._joined(pages, extra), pages)
        self.state.update(done=True, rows=self.state["rows"] + len(extra), holes=[[h.first, h.end, h.missing] for h in holes], parts=[])
        self._tell(pages, holes)
        self.save()
        for part in self._work.glob("*.parquet"):
            part.unlink()

    def keys(self, pages: Pages) -> Any:
        """The keys of all rows, for what is short (funding)."""
        parts = [pages.key(rows) for rows in self._parts(pages)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _parts(self, pages: Pages) -> Iterator[Rows]:
        for name in self.state["parts"]:
            yield from_arrow(pages.spec, pq.read_table(self._work / name), (pages.symbol,))

    def _joined(self, pages: Pages, extra: Rows) -> Iterator[pa.Table]:
        at, seq, before = 0, 0, None
        parts = [*self.state["parts"]]
        for k, rows in enumerate(self._parts(pages)):
            end = len(extra) if k == len(parts) - 1 else int(np.searchsorted(pages.key(extra), pages.key(rows)[-1]))
            rows, at = _with(pages, rows, extra[at:end]), end
            before = _marked(pages, rows, before)
            number_rows(rows, np.arange(seq, seq + len(rows)))
            seq += len(rows)
            yield to_arrow(pages.spec, rows, (pages.symbol,))
        if not parts:
            number_rows(extra, np.arange(len(extra)))
            _marked(pages, extra, None)
            yield to_arrow(pages.spec, extra, (pages.symbol,))

    def _write(self, path: Path, tables: Any, pages: Pages) -> None:
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with pq.ParquetWriter(partial, arrow_schema(pages.spec), compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise PenstockError(f"{path}: cannot be written ({error.strerror or error}); what was fetched before is kept") from None

    def _tell(self, pages: Pages, holes: list[Hole]) -> None:
        told: dict[str, Any] = json.loads(self._gaps.read_text()) if self._gaps.exists() else {}
        told[self.path.name] = [shown(pages, h) for h in holes]
        _replace(self._gaps, json.dumps(told, indent=1) + "\n")


def shown(pages: Pages, hole: Hole) -> dict[str, Any]:
    """A hole as people read it."""
    if hole.by_id:
        return {"from_id": hole.first, "to_id": hole.end - 1, "missing": hole.missing}
    first, end = (str(np.datetime64(ms, "ms")).removesuffix(".000") + "Z" for ms in (hole.first, hole.end))
    return {"from": first, "to": end, "missing": hole.missing}


def _with(pages: Pages, rows: Rows, more: Rows) -> Rows:
    if len(more) == 0:
        return rows
    both = np.concatenate([rows, more])
    return both[np.argsort(pages.key(both), kind="stable")]


def _marked(pages: Pages, rows: Rows, before: int | None) -> int | None:
    """Candles say how many are missing in front of them. Returns the last one's open time."""
    if pages.what != "candles" or len(rows) == 0:
        return before
    opened = rows["ts_open_ns"]
    first = opened[0] - pages.step_ms * 10**6 if before is None else before
    rows["gap"] = np.maximum(0, np.diff(opened, prepend=first) // (pages.step_ms * 10**6) - 1)
    return int(opened[-1])


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise PenstockError(f"{path}: cannot be written ({error.strerror or error}); what was fetched before is kept") from None
