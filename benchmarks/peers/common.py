"""What the adapters share: a stop-watch by stage, the file of a field, and the error "I cannot run here"."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

INTENT_VECTOR = 1007  # NIFTI_INTENT_VECTOR
HOW = "install requirements-peers.txt into an environment of its own and name it with --peers_python"


class LeftOutError(Exception):
    """A method cannot run in this environment or on this machine; the message says why and what to do."""


def need(module: str, package: str) -> Any:
    """Import a module of a peer.

    Args:
        module: its name.
        package: its name in requirements-peers.txt, for the message.

    Raises:
        LeftOutError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise LeftOutError(f"{package} is not installed ({error.name} is missing): {HOW}") from error


class Stages(dict[str, float]):
    """Seconds by the name of a stage."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time inside the ``with`` to a stage."""
        begun = time.perf_counter()
        yield
        self[name] = self.get(name, 0.0) + time.perf_counter() - begun


def read_vectors(path: str | Path) -> np.ndarray:
    """Read the vectors (W, H, D, 3), in LPS mm, of a field that an ITK program wrote."""
    image: Any = nib.load(path)
    return np.asarray(image.dataobj, np.float32)[:, :, :, 0]


def save_field(path: Path, lps_mm: np.ndarray, *, fixed: Path) -> None:
    """Write an ITK displacement field on the grid of the fixed scan's file.

    Args:
        path: of the field.
        lps_mm: (W, H, D, 3), LPS mm.
        fixed: the fixed scan.
    """
    grid: Any = nib.load(fixed)
    image = nib.Nifti1Image(np.asarray(lps_mm, np.float32)[:, :, :, None], grid.affine)
    image.header["intent_code"] = INTENT_VECTOR
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
