"""The pairs that are measured: the phantom always, real and semi-real scans where they lie beside the checkout."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Pair:
    """A named pair. files: paths by option name of the command line (none: the phantom).

    limits: what a run must reach, by column of the table (see `benchmarks.run`); the best a person may ask of the default.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def missing(self) -> list[Path]:
        """The files that are not there."""
        return [path for path in self.files.values() if not path.exists()]


def _lung(name: str, folder: str, limits: dict[str, float]) -> Pair:
    names = {"fixed_label": "fixed_lungmask.nii.gz", "moving_label": "moving_lungmask.nii.gz"}
    names = {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz", **names, "landmarks": "landmarks.csv"}
    return Pair(name, {key: DATA / folder / file for key, file in names.items()}, limits)


SEMI = {"TRE mm": 0.65, "p95 mm": 1.5, "Dice": 0.985, "folds %": 0.0, "folds in label %": 0.0, "s": 120, "MiB": 4096}
REAL = {"TRE mm": 1.7, "Dice": 0.983, "folds %": 0.05, "folds in label %": 0.0, "s": 120}
PHANTOM = {"TRE voxel": 0.5, "Dice": 0.97, "folds %": 0.0, "s": 60}

PAIRS = [
    Pair("phantom", limits=PHANTOM),
    _lung("lung_ct_real", "lung_ct_real", REAL),
    _lung("lung_ct_semi_a", "lung_ct_semi/a", SEMI),
    _lung("lung_ct_semi_b", "lung_ct_semi/b", SEMI),
]
