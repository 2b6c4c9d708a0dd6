"""The warehouse's server process: ClickHouse's HTTP protocol in front of the embedded engine.

Started by `penstock warehouse serve`, or as a child by `sinks.warehouse.start_embedded`. One process owns a directory:
it holds `server.lock` and writes its address into `server.json`. SIGTERM and SIGINT let running statements finish.
"""

import argparse
import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import IO

import uvicorn

from schemas.errors import PenstockError, UserError
from sinks.warehouse import (
    CLIENTS_LOCK,
    DEFAULT_PORT,
    ENGINE_FOLDER,
    PASSWORD_VARIABLE,
    SERVER_FILE,
    SERVER_LOCK,
    USER_VARIABLE,
)
from sinks.warehouse_engine import Engine
from sinks.warehouse_service import Service

REQUEST_BYTES_MAX = 512 * 1024 * 1024
SHUTDOWN_S = 60
ORPHAN_CHECK_S = 1.0
LOCK_ATTEMPTS = 5


def lock_directory(directory: Path) -> IO[str]:
    """Make the directory this process's; UserError that names the process which has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / SERVER_LOCK).open("a+")
    except OSError as error:
        raise UserError(f'warehouse directory "{directory}": {error.strerror}; name another with --directory') from None
    for attempt in range(LOCK_ATTEMPTS):  # who only asks whether it is locked holds it for a moment, too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempt < LOCK_ATTEMPTS - 1:
                time.sleep(0.02)
                continue
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise UserError(
                f'warehouse directory "{directory}" is in use by process {owner} (lock file {directory / SERVER_LOCK}); '
                "stop that process, use its URL, or name another directory"
            ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        return listener
    except OSError as error:
        raise UserError(
            f"port {port} on {host} cannot be used: {error.strerror}; stop what listens there or choose another with --port"
        ) from None


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def serve(
    directory: Path | str,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    embedded: bool = False,
    outside: bool = False,
    request_bytes_max: int = REQUEST_BYTES_MAX,
) -> None:
    """Serve until SIGTERM or SIGINT, or, where `embedded`, until no client holds the directory.

    UserError where the port is taken, the directory is locked or damaged, or a password is missing for a host that
    others can reach.
    """
    directory = Path(directory).absolute()
    password = os.environ.get(PASSWORD_VARIABLE) or None
    if password is None and not _is_loopback(host):
        raise UserError(f"the warehouse may not listen on {host} without a password; set {PASSWORD_VARIABLE}")
    with lock_directory(directory), contextlib.closing(_bind(host, port)) as listener:
        engine = Engine(directory / ENGINE_FOLDER, outside)
        hosts = {"localhost", "127.0.0.1", "::1", host} if _is_loopback(host) else set()
        service = Service(engine, os.environ.get(USER_VARIABLE, "default"), password, request_bytes_max, hosts)
        config = uvicorn.Config(
            service.app(), log_level="warning", lifespan="off", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S,
            timeout_keep_alive=30, server_header=False,
        )
        server = uvicorn.Server(config)
        if embedded:
            threading.Thread(target=_stop_when_alone, args=(directory, server), daemon=True).start()
        record = directory / SERVER_FILE
        _publish(record, host, listener.getsockname()[1], embedded)
        # the server raises the signal that stopped it once more when it is done; that was the wish, not an error
        for wish in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wish, lambda *_: None)
        try:
            server.run(sockets=[listener])
        finally:
            record.unlink(missing_ok=True)
            engine.close(SHUTDOWN_S)


def _publish(record: Path, host: str, port: int, embedded: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    text = json.dumps({"pid": os.getpid(), "url": f"http://{shown}:{port}", "embedded": embedded})
    temporary = record.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(record)


def _stop_when_alone(directory: Path, server: uvicorn.Server) -> None:
    """End the server when no client holds the clients' lock, however the clients ended.

    The lock is kept until the process is gone, so that a client who comes meanwhile waits and never meets a dying server.
    """
    lock = (directory / CLIENTS_LOCK).open("a+")
    while True:
        time.sleep(ORPHAN_CHECK_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            server.should_exit = True
            threading.Event().wait()


def main() -> int:
    """`python -m sinks.warehouse_server DIRECTORY [--host H] [--port P] [--embedded]`."""
    parser = argparse.ArgumentParser(prog="penstock warehouse serve")
    parser.add_argument("directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--outside", action="store_true", help="let statements reach files and hosts")
    parser.add_argument("--request-bytes-max", type=int, default=REQUEST_BYTES_MAX)
    given = vars(parser.parse_args())
    try:
        serve(**given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except PenstockError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
