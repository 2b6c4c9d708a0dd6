"""From an error to an exit code: 2 for a user's mistake, 1 for a failure of ours or of a service, 130 for Ctrl-C. One line each."""

import sys
from collections.abc import Callable

from schemas.errors import PenstockError, UserError


def guarded(run: Callable[[], object]) -> int:
    """Run a command; print its error as one line on standard error."""
    try:
        run()
    except UserError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 2
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("penstock: interrupted; what was written is consistent", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except MemoryError:
        print("penstock: out of memory; give a smaller --batch-rows or write to a warehouse", file=sys.stderr)
        return 1
    return 0
