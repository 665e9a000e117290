"""The start of a command's own process: libraries loaded without the parts of them that no command here uses.

Loading torch, Ignite and MONAI takes as long as a quick fit, and half of it went to four parts that nothing here
touches (docs/decisions/0015-start.md). A process of another program, which may use them, is left alone: only commands call
this. `python -m monai.bundle run` loads everything, as MONAI does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

# MONAI tries these and goes on without: scipy.signal for its ultrasound maps, matplotlib for plots in notebooks
OPTIONAL = ("scipy.signal", "matplotlib")
# Ignite's checkpoints ask whether an optimiser is torch's ZeroRedundancyOptimizer; its package brings all of torch's
# distributed tensors
SHARDED, SHARDED_CLASS = "torch.distributed.optim", "ZeroRedundancyOptimizer"
# of which torch's optimisers ask at every step to leave them alone, although nothing is compiled
COMPILER = "torch._dynamo"
LIBRARIES = ("ignite.handlers", "monai.bundle", "monai.engines", "monai.transforms")


def load_libraries() -> None:
    """Nothing; torch, Ignite and MONAI are loaded, and waiting threads will not spin (docs/decisions/0005-threads.md).

    What was left out can be imported afterwards like anything else. Where MONAI or Ignite is loaded already, nothing
    happens.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "500")  # read once, when torch is loaded
    if {"monai", "ignite"} & set(sys.modules):
        return
    with hidden(OPTIONAL), stand_in(SHARDED, SHARDED_CLASS):
        for name in LIBRARIES:
            importlib.import_module(name)
    sys.modules.setdefault(COMPILER, _Compiler(COMPILER))


class _Compiler(ModuleType):
    """torch's compiler where nothing is compiled; whatever else is asked of it is answered by the real one, loaded then."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what looks through all modules asks for __file__
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(importlib.import_module(COMPILER), name)

    def disable(self, fn: Callable | None = None, *args: Any, **options: Any) -> Any:
        """The function, which is not compiled; without one, the real module's decorator."""
        return self.__getattr__("disable")(fn, *args, **options) if fn is None else fn

    def graph_break(self, msg: str = "") -> None:
        """Nothing."""


class _Hide(MetaPathFinder):
    """Says of some modules that they are not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is not loaded at the start of a command", name=name)


@contextlib.contextmanager
def hidden(names: Sequence[str]) -> Iterator[None]:
    """Within it, modules of these names that are not loaded yet are as good as not installed."""
    finder = _Hide(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextlib.contextmanager
def stand_in(name: str, attribute: str) -> Iterator[None]:
    """Within it, a module that is not loaded yet has one class alone, of which nothing is an instance."""
    if name in sys.modules:
        yield
        return
    parent = importlib.import_module(name.rpartition(".")[0])
    module = ModuleType(name)
    setattr(module, attribute, type(attribute, (), {}))
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        vars(parent).pop(name.rpartition(".")[2], None)
