"""The command ``ncf``, also ``python -m ncf``: the version at once, all else by `ncf.commands.main`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ncf.core.interruption import end_of, interrupted

VERSION = (["--version"], ["-V"], ["version"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out a command line.

    Args:
        arguments: the command and what follows; None for those of this process.

    Raises:
        SystemExit: with one line and status 1 where something cannot be done, and status 130 after Ctrl-C.
    """
    try:
        _carry_out(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit:
        raise
    except BaseException as error:  # Ctrl-C at any moment, also while libraries are loaded
        if not interrupted(error):
            raise
        raise end_of() from None


def _carry_out(given: list[str]) -> None:
    """Carry out a command line that was given."""
    if given in VERSION:
        from ncf.core.presets import version
        from ncf.core.streams import keep_going_unread

        keep_going_unread()
        print(version())
        return
    from ncf.commands.main import main as carry_out

    carry_out(given)


if __name__ == "__main__":
    main()
