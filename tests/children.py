"""Processes that a test starts: gone when their block ends, whatever the test found."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "cli.main")
"""`penstock`."""


@contextmanager
def running(words: Sequence[str], **options: Any) -> "Iterator[subprocess.Popen[Any]]":
    """A child with pipes, killed and waited for at the end where it still runs; left alone, it would disturb a later test."""
    given: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    child = subprocess.Popen(list(words), **given)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()  # reads and closes what the test did not
