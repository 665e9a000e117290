"""Two parts of a work at once, and threads that wait for each other without spinning.

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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # whoever set one has chosen
SHARED = 2**17  # numbers, enough that torch shares the work among threads
MOST_TEAMS = 8
MOST_AT_ONCE = 4  # each holds memory of its own
In = TypeVar("In")
Out = TypeVar("Out")


def side_by_side(function: Callable[[In], Out], of: Iterable[In]) -> list[Out]:
    """Call a function of each of a few things at once, and return what it returns, in their order.

    Worth its while where the time goes into reading, unpacking and numpy, which let other threads run. Of several
    errors, that of the first thing is raised.
    """
    things = list(of)
    if len(things) < 2:
        return [function(thing) for thing in things]
    with ThreadPoolExecutor(min(len(things), MOST_AT_ONCE)) as pool:
        return list(pool.map(function, things))


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
