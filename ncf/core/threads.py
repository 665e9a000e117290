"""Threads that wait for each other without spinning, in a process that loaded torch before it knew of us.

GNU's OpenMP, with which torch shares work on Linux, lets a waiting thread spin for milliseconds. On a busy machine a
small step then takes as long as a thread that spins keeps its core from the one that is waited for: a fit takes ten
times as long. `GOMP_SPINCOUNT` shortens that, but is read once, when torch is loaded. There is one more rule: where
OpenMP has more threads than the machine has cores, they hardly spin. So threads with teams of their own, which do
nothing, are kept while a fit runs (docs/decisions/0005-threads.md).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # whoever set one has chosen
SHARED = 2**17  # numbers, enough that torch shares the work among threads
MOST_TEAMS = 8
Given = ParamSpec("Given")
Found = TypeVar("Found")


@contextlib.contextmanager
def beside(
    function: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs
) -> Iterator[Callable[[], Found]]:
    """Call a function beside what the ``with`` does, if torch may use more than one thread.

    Args:
        function: to call; where there is but one thread, only when what it returns is asked for.
        args: of the function.
        kwargs: of the function.

    Yields:
        A function that waits, and returns or raises what the other one does.
    """
    import torch

    if torch.get_num_threads() == 1:
        yield lambda: function(*args, **kwargs)
        return
    with ThreadPoolExecutor(1) as other:
        yield other.submit(function, *args, **kwargs).result


@contextlib.contextmanager
def calm_threads() -> Iterator[None]:
    """Keep OpenMP's threads from spinning while they wait, inside the ``with``; values do not change."""
    done = threading.Event()
    holders = [threading.Thread(target=_hold, args=(done,), daemon=True) for _ in range(_teams())]
    for holder in holders:
        holder.start()
    try:
        yield
    finally:
        done.set()
        for holder in holders:
            holder.join()


def _teams() -> int:
    """Return how many teams more make OpenMP's threads more than the cores; 0 where that changes nothing."""
    import torch

    threads = torch.get_num_threads()
    if sys.platform != "linux" or threads == 1 or any(name in os.environ for name in SETTINGS):
        return 0
    return min((len(os.sched_getaffinity(0)) - 1) // (threads - 1), MOST_TEAMS)


def _hold(done: threading.Event) -> None:
    """Have a team of threads until it is no longer needed."""
    import torch

    torch.ones(SHARED).mul_(2)
    done.wait()
