"""What a run does to its own process: keep or return memory, and tell the command line that started it."""

from __future__ import annotations

import ctypes
import gc
import shlex
import sys
from pathlib import Path

# by the numbers of malloc.h: M_MMAP_THRESHOLD at its largest, and M_TRIM_THRESHOLD, in bytes; M_ARENA_MAX, because what
# is freed in the heap of one thread is of no use to another
GLIBC_KEEPS = {-3: 32 << 20, -1: 2**31 - 1, -8: 2}


class Allocator:
    """Lets the process keep freed memory for its next step, in two heaps at most (docs/decisions/0009-speed.md).

    By default glibc returns large blocks to the system at once, and the system clears every page of the next block.
    """

    def run(self) -> bool:
        """Tell the C library to keep freed memory.

        Returns:
            Whether it was told; on Windows, macOS and musl nothing is changed.
        """
        tell = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
        return tell is not None and all(tell(what, size) == 1 for what, size in GLIBC_KEEPS.items())


def release_memory() -> None:
    """Return unused memory to the system, so that a process does not grow from pair to pair.

    An evaluator and its handlers refer to each other, so the images of a pair stay in memory until Python looks for
    such cycles. The memory that the C library keeps for the next step (`Allocator`) becomes more fragmented with every
    pair.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def command_line() -> str:
    """Return the command line of this process as a user would type it: the program's name and its quoted arguments."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # set for python -m NAME, None for a script
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join([*program, *sys.argv[1:]])
