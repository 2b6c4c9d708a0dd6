"""From an error to an exit code: 2 for a user's mistake, 1 for a failure of ours or of a service, 130 for Ctrl-C. One line each."""

from collections.abc import Callable

from cli.logs import say_error
from schemas.errors import PenstockError, UserError


def guarded(run: Callable[[], object]) -> int:
    """Run a command; print its error as one line on standard error."""
    try:
        run()
    except UserError as error:
        say_error(str(error))
        return 2
    except PenstockError as error:
        say_error(str(error))
        return 1
    except KeyboardInterrupt:
        say_error("interrupted; what was written is consistent")
        return 130
    except BrokenPipeError:
        return 0
    except MemoryError:
        say_error("out of memory; give a smaller --batch-rows or write to a warehouse")
        return 1
    return 0
