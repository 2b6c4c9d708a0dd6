"""The warehouse as commands see it: start the embedded one, share a running one, and let the last user stop it.

Every user of an embedded warehouse holds a shared lock on `clients.lock`, which the system frees even after kill -9; the
server ends when nobody holds it. Importing this loads neither the engine nor a web server.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from schemas.errors import PenstockError, UserError

DEFAULT_PORT = 8123
ENGINE_FOLDER = "engine"
SERVER_LOCK = "server.lock"
SERVER_FILE = "server.json"
CLIENTS_LOCK = "clients.lock"
START_LOCK = "start.lock"
LOG_FILE = "server.log"
USER_VARIABLE = "PENSTOCK_WAREHOUSE_USER"
PASSWORD_VARIABLE = "PENSTOCK_WAREHOUSE_PASSWORD"
START_S_MAX = 60.0
STOP_S_MAX = 90.0


class Embedded(NamedTuple):
    """A running warehouse: its URL, and what ends this process's use of it (harmless when called twice)."""

    url: str
    stop: Callable[[], None]


def start_embedded(directory: Path | str, port: int = 0) -> Embedded:
    """The warehouse of a directory: the one that runs there already, else a child process that is started now.

    UserError where the directory is locked, damaged or cannot be written; PenstockError where the child does not answer.
    """
    directory = Path(directory).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        clients = (directory / CLIENTS_LOCK).open("a+")
    except OSError as error:
        raise UserError(f'warehouse directory "{directory}": {error.strerror}; name another directory') from None
    child: subprocess.Popen[bytes] | None = None
    url: str | None = None
    try:
        fcntl.flock(clients, fcntl.LOCK_SH)
        with (directory / START_LOCK).open("a+") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            url = running_url(directory)
            if url is None:
                child = _spawn(directory, port)
                url = _wait(directory, child)
    finally:
        if url is None:
            clients.close()
            if child is not None:
                child.kill()
                child.wait()
    if child is not None:
        # the child may outlive this process's use of it: somebody must take its exit
        threading.Thread(target=child.wait, name="warehouse-reaper", daemon=True).start()
    return Embedded(url, _stopper(directory, clients, child))


def running_url(directory: Path | str) -> str | None:
    """The URL of the server that owns a directory; None where none does, after waiting for one that is starting."""
    directory = Path(directory)
    deadline = time.monotonic() + START_S_MAX
    while _is_locked(directory / SERVER_LOCK):
        found = _record(directory)
        if found is not None and _answers(str(found["url"])):
            return str(found["url"])
        if time.monotonic() > deadline:
            owner = (directory / SERVER_LOCK).read_text().strip()
            raise UserError(
                f'warehouse directory "{directory}" is in use by process {owner}, which does not answer '
                f"(lock file {directory / SERVER_LOCK}); stop that process or name another directory"
            )
        time.sleep(0.02)
    return None


def _spawn(directory: Path, port: int) -> subprocess.Popen[bytes]:
    (directory / SERVER_FILE).unlink(missing_ok=True)
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    with (directory / LOG_FILE).open("wb") as log:
        # a session of its own: Ctrl-C in the terminal reaches the command, which then stops the server in its own time
        return subprocess.Popen(
            [sys.executable, "-m", "sinks.warehouse_server", str(directory), "--port", str(port), "--embedded"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True,
        )  # fmt: skip


def _wait(directory: Path, child: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S_MAX
    while child.poll() is None:
        found = _record(directory)
        if found is not None and found["pid"] == child.pid and _answers(str(found["url"])):
            return str(found["url"])
        if time.monotonic() > deadline:
            raise PenstockError(f"the warehouse did not answer within {START_S_MAX:.0f} s; see {directory / LOG_FILE}")
        time.sleep(0.01)
    lines = (directory / LOG_FILE).read_text(errors="replace").strip().splitlines()
    if child.returncode == 2 and lines:
        raise UserError(lines[-1])
    said = f": {lines[-1][:300]}" if lines else ""
    raise PenstockError(
        f'the warehouse of "{directory}" ended with {child.returncode} while starting{said}; its directory may be damaged: '
        f"see {directory / LOG_FILE}, restore a backup, or name another directory"
    )


def _stopper(directory: Path, clients: IO[str], child: subprocess.Popen[bytes] | None) -> Callable[[], None]:
    owner = os.getpid()

    def stop() -> None:
        if clients.closed or os.getpid() != owner:
            return
        try:
            # alone where the lock can be had for itself; whoever comes now waits for it, then starts its own server
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            clients.close()  # the last one stops it
            return
        try:
            found = _record(directory)
            if child is not None and child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(STOP_S_MAX)
            elif found is not None and found["embedded"] and _is_locked(directory / SERVER_LOCK):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(str(found["pid"])), 15)
                _until_free(directory / SERVER_LOCK)
        finally:
            clients.close()

    return stop


def _until_free(lock: Path) -> None:
    deadline = time.monotonic() + STOP_S_MAX
    while _is_locked(lock) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _record(directory: Path) -> dict[str, object] | None:
    try:
        found = json.loads((directory / SERVER_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
