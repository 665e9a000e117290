"""Neural Correspondence Field: registration of one pair of 3D scans, without training data.

``register`` takes two images in memory or two paths, ``register_series`` many phases and one fixed image,
``RegisterPaird`` is ``register`` as a MONAI transform, ``open_result`` opens the folder of a finished registration, and
``trust`` bounds its error.
The command ``ncf`` registers files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncf.api.registered import OpenedResult, Registered, open_result
    from ncf.api.registration import RegisterPaird, register
    from ncf.api.series import register_series
    from ncf.api.trust import trust
    from ncf.core.errors import PairError

__all__ = [
    "OpenedResult",
    "PairError",
    "RegisterPaird",
    "Registered",
    "open_result",
    "register",
    "register_series",
    "trust",
]

_HOMES = {  # each is loaded when it is asked for: torch and MONAI take seconds
    "OpenedResult": "ncf.api.registered",
    "PairError": "ncf.core.errors",
    "RegisterPaird": "ncf.api.registration",
    "Registered": "ncf.api.registered",
    "open_result": "ncf.api.registered",
    "register": "ncf.api.registration",
    "register_series": "ncf.api.series",
    "trust": "ncf.api.trust",
}


def __getattr__(name: str) -> Any:
    """Load one of the public names, or the version."""
    if name == "__version__":
        return import_module("ncf.core.presets").version()
    if name not in _HOMES:
        raise AttributeError(f"module 'ncf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, sorted."""
    return sorted([*__all__, "__version__"])
