"""The errors that a user can cause: one line that names the place and the value and says what to do."""

import difflib
from collections.abc import Iterable


class PenstockError(Exception):
    """A failure of ours or of a service; the command exits with 1."""


class UserError(PenstockError):
    """A user's mistake; the command prints the message and exits with 2."""


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """`unknown feature "rsj(14)"; did you mean "rsi"?`"""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names)}"
    return UserError(f'unknown {what} "{name}"; {hint}')
