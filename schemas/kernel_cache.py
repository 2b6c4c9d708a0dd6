"""Where compiled kernels are kept: a folder named by the content of every source that goes into them.

Numba looks only at the file of the function it loads, so a change in a file that it calls would go unseen. Here any
change in `schemas`, in `operators` or in what else is `CALLED` means another folder. Set before Numba is first
imported; an explicit NUMBA_CACHE_DIR wins.
"""

import os
import shutil
from pathlib import Path

from blake3 import blake3

ROOT = Path(__file__).resolve().parent.parent
CALLED = ("sources/kafka_memory.py", "sources/kafka_numbers.py")
"""Files of compiled functions that other files' kernels call, outside the rooms that are hashed whole."""
KEPT = 3
"""Folders of older sources that are kept."""


def source_hash() -> str:
    """Hash of all sources that kernels are made of."""
    total = blake3()
    for room in ("operators", "schemas"):
        for path in sorted((ROOT / room).rglob("*.py")):
            total.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    for name in CALLED:
        if (ROOT / name).exists():
            total.update(name.encode() + (ROOT / name).read_bytes())
    return total.hexdigest()[:16]


def use_kernel_cache() -> None:
    """Point Numba at this source's folder, in the project or, where that is not writable, in the user's cache."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
    base = (ROOT if os.access(ROOT, os.W_OK) and (ROOT / "pyproject.toml").exists() else home) / ".kernels"
    folder = base / source_hash()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for old in sorted((p for p in base.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError:
        return
    os.environ["NUMBA_CACHE_DIR"] = str(folder)


use_kernel_cache()
