"""The one exception whose message is meant for the person at the keyboard."""


class PairError(ValueError):
    """Input or outcome that makes a registration impossible; the message is one line that says what to do about it."""
