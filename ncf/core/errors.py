"""The one exception whose message is meant for the user."""

from __future__ import annotations


class PairError(ValueError):
    """Input or outcome that makes a registration impossible.

    Args:
        reason: one line: what was expected, what came, in which file, and what to do about it, in words that hold for
            every face.
        hint: a key of `ncf.core.refusals.ADVICE`, for what else could help. Each face words it for its own user, who
            has options of a command line, arguments of a function, or a form in a viewer.
    """

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint
