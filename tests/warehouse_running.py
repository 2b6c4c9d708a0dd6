"""One embedded warehouse for all tests of a process, started when the first of them asks."""

import atexit
import shutil
import tempfile
from functools import cache
from typing import Any
from urllib.parse import urlencode

import urllib3

from sinks.warehouse import start_embedded


@cache
def warehouse_url() -> str:
    """The URL of the tests' warehouse."""
    directory = tempfile.mkdtemp(prefix="penstock-tests-")
    running = start_embedded(directory)
    atexit.register(lambda: (running.stop(), shutil.rmtree(directory, ignore_errors=True)))
    return running.url


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=8, retries=False)


def http(
    sql: str | bytes = b"", *, method: str = "POST", url: str = "", path: str = "/", headers: Any = None, decode: bool = False,
    **parameters: Any,
) -> urllib3.BaseHTTPResponse:  # fmt: skip
    """One request, as curl would send it."""
    body = sql.encode() if isinstance(sql, str) else sql
    encoded = "?" + urlencode(parameters) if parameters else ""
    return _pool().request(
        method, f"{url or warehouse_url()}{path}{encoded}", body=body if method == "POST" else None,
        headers=headers or {}, decode_content=decode,
    )  # fmt: skip

