"""``ncf fetch``: download of a public data set."""

from __future__ import annotations

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, refuse, true_or_false


@SetParseFn(str)
def fetch(name: str, *, dir: str, progress: str = "true") -> CallJob:
    """Download the public data set NAME into a folder, check it and unpack it; run again, it goes on where it stopped.

    Args:
        name: lungct (Learn2Reg's lung CT of 2020, Zenodo record 3835682).
        dir: the folder; the data set is unpacked below it.
        progress: false hides the progress bar.
    """
    folder, bar = absolute("dir", dir), true_or_false("progress", progress)
    from ncf.io.download import SOURCES
    from ncf.io.download import fetch as load

    if name not in SOURCES:
        refuse(f"no data set {name!r}; there are: {', '.join(SOURCES)}")

    def call() -> None:
        """Download the data set and print its path."""
        print(load(SOURCES[name], folder, progress=bar))

    return CallJob(call)
