"""Which files the paths of a command line mean: a file, a folder of data files, or a glob.

The same files come out whatever the order of the paths; none twice.
"""

import difflib
import glob
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import UserError

SUFFIXES = (".parquet", ".pq", ".csv", ".gz", ".zip", ".arrow", ".arrows", ".feather", ".ipc")
"""What a folder's data files end in; its other files are left alone. A file that is named may end in anything."""


def files_of(paths: Sequence[str]) -> tuple[str, ...]:
    """The files, sorted; UserError where a path means none."""
    if not paths:
        raise UserError("no path given; name a file, a folder or a glob of recorded trades, quotes or bars")
    found: dict[str, str] = {}
    for path in paths:
        for file in _files(str(path)):
            found.setdefault(str(Path(file).resolve()), file)
    return tuple(sorted(found.values()))


def _files(path: str) -> list[str]:
    at = Path(path)
    try:
        if at.is_dir():
            return _folder(at)
        if at.exists():
            if not at.is_file():
                raise UserError(f"{path}: is not a regular file")
            return [path]
    except OSError as e:
        raise UserError(f"{path}: cannot be looked at ({e.strerror})") from None
    if glob.has_magic(path):
        matched = [m for m in glob.glob(path, recursive=True) if Path(m).is_file()]  # noqa: PTH207
        if not matched:
            raise UserError(f"{path}: the pattern matches no file")
        return matched
    raise UserError(f"{path}: no such file{_near(at)}")


def _folder(folder: Path) -> list[str]:
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith((".", "_")))
    files = [str(p) for p in inside if p.is_file() and p.name.lower().endswith(SUFFIXES)]
    if not files:
        folders = [p.name for p in inside if p.is_dir()]
        hint = f"; it has folders: {', '.join(folders[:8])}" if folders else f"; data files end in {' '.join(SUFFIXES)}"
        raise UserError(f"{folder}: no data files in this folder{hint}")
    return files


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    names = sorted(p.name for p in path.parent.iterdir())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if not near:
        near = [n for n in names if path.name.lower() in n.lower()][:3]
    return f"; did you mean {', '.join(near)}?" if near else ""
