"""How a command's own process loads torch, Ignite and MONAI: without optional packages that are not used here.

Only commands call this, because another program that uses the library may need those packages.
`python -m monai.bundle run` loads everything, as MONAI does. The measurements are in docs/decisions/0015-start.md.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder

# MONAI tries to import these and goes on without them: scipy.signal for its ultrasound maps, matplotlib for plots in
# notebooks, pydicom for a reader of its own
OPTIONAL = ("scipy.signal", "matplotlib", "pydicom")
LIBRARIES = ("ignite.handlers", "monai.bundle", "monai.engines", "monai.transforms")


def load_libraries() -> None:
    """Load torch, Ignite and MONAI, so that waiting threads do not spin (docs/decisions/0005-threads.md).

    The packages that were left out can be imported later like any other. Where MONAI or Ignite is loaded already,
    nothing more is loaded. Python's garbage collector does not look at the loaded modules, neither now nor at the end
    of the process: they live as long as the process does.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "500")  # it is read once, when torch is loaded
    if {"monai", "ignite"} & set(sys.modules):
        return
    with hidden(OPTIONAL), _uncollected():
        for name in LIBRARIES:
            importlib.import_module(name)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from what is made inside the ``with``, for good."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


class _Hide(MetaPathFinder):
    """Makes some modules look as if they were not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for the hidden modules, and leave all others to the next finder."""
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is not loaded at the start of a command", name=name)


@contextlib.contextmanager
def hidden(names: Sequence[str]) -> Iterator[None]:
    """Make modules that are not loaded yet look as if they were not installed, inside the ``with``.

    Args:
        names: of the modules.
    """
    finder = _Hide(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
