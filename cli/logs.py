"""How a command speaks on standard error: `--log-format json|text` and `--log-level`, and its last word when it fails.

With json every line on standard error that is ours is one object, the error that ends the command too; a secret is in none.
"""

import io
import sys
from typing import IO, cast

from telemetry import logs

_form = "text"


class _Records(io.TextIOBase):
    """What a command tells people on standard error, as records: a line each."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                logs.get("cli").info(line.strip())
        return len(text)


def set_up_logs(form: str, level: str) -> None:
    """Before any command; UserError for an unknown form or level."""
    global _form
    logs.set_up(form, level)
    _form = form
    if form == "json":
        from cli.output import err
        err.file = cast(IO[str], _Records())
        err.width = 10_000  # a sentence is one record


def say_error(text: str) -> None:
    """The one line with which a command ends that failed."""
    if _form == "json":
        logs.get("cli").error(text)
    else:
        print(f"penstock: {logs.redacted_text(text)}", file=sys.stderr)
