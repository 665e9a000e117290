"""The pairs that are measured, and what our method must reach on them.

The phantom is there always; real and semi-real scans where they lie beside the checkout; any others by a list of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path

from ncf.io.pair_lists import read_pairs

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PHANTOM_SIZE = (112, 96, 104)
FILE_KEYS = ("fixed", "moving", "fixed_label", "moving_label", "landmarks")


@dataclass(frozen=True)
class Contest:
    """Our value of a column against a peer's in the same run: at most ``factor`` times it, or above it for Dice.

    Attributes:
        column: of the table.
        peer: a method.
        factor: of the peer's value.
    """

    column: str
    peer: str
    factor: float = 1.0


@dataclass(frozen=True)
class Pair:
    """A named pair.

    Attributes:
        name: in the tables.
        files: paths by option name of the command line; the phantom has none until `with_phantom` has written it.
        limits: what a run of our default must reach, by column of the table.
        contests: what the means of the group must reach against peers.
        group: its pairs share a row of means, a panel of the plot, and the contests; a pair alone is its own group.
        align_centres: True where headers do not overlap; our method is then called with the option for that.
    """

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    contests: tuple[Contest, ...] = ()
    group: str = ""
    align_centres: bool = False

    @property
    def missing(self) -> list[Path]:
        """The files that do not exist."""
        return [path for path in self.files.values() if not path.exists()]


def with_phantom(pair: Pair, folder: Path, *, size: Sequence[int] = PHANTOM_SIZE) -> Pair:
    """Return a pair with its files. The phantom is written once, so that all methods read the same.

    Args:
        pair: without files for the phantom; others are returned as they are.
        folder: for the phantom.
        size: voxels of the phantom.
    """
    if pair.files:
        return pair
    paths = {key: folder / f"{key}{'.csv' if key == 'landmarks' else '.nii.gz'}" for key in FILE_KEYS}
    if not all(path.exists() for path in paths.values()):
        from ncf.phantom.chest import breathing_thorax, write

        write(breathing_thorax(size, seed=0), folder)
    return replace(pair, files=paths)


def read_dataset(path: Path) -> list[Pair]:
    """Read the pairs of any list that `ncf.io.pair_lists.read_pairs` reads, in one group named after the file.

    Args:
        path: of the list.

    Raises:
        ValueError: the list is not understood, or has entries that the referee does not know.
    """
    pairs = []
    for row in read_pairs(path):
        unknown = sorted(set(row) - {"name", *FILE_KEYS})
        if unknown:
            raise ValueError(
                f"{path}: {row['name']} has {', '.join(unknown)}; a benchmark knows {', '.join(FILE_KEYS)}"
            )
        files = {key: Path(row[key]) for key in FILE_KEYS if key in row}
        pairs.append(Pair(row["name"], files, group=path.stem))
    return pairs


def _lung(name: str, folder: str, limits: dict[str, float], *contests: Contest) -> Pair:
    """Return a pair of lung scans with masks and landmarks."""
    names = {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz", "landmarks": "landmarks.csv"}
    names |= {"fixed_label": "fixed_lungmask.nii.gz", "moving_label": "moving_lungmask.nii.gz"}
    return Pair(name, {key: DATA / folder / file for key, file in names.items()}, limits, contests)


def _breathing(name: str, folder: str, limits: dict[str, float]) -> Pair:
    """Return a pair of abdominal scans with landmarks in the liver and at the wall around it."""
    files = {key: DATA / folder / f"{key}.nii.gz" for key in ("fixed", "moving")}
    files |= {key: DATA / folder / f"{key}.csv" for key in ("landmarks_liver", "landmarks_wall")}
    return Pair(name, files, limits, group="liver_mr")


def _segmented(name: str, folder: str, stems: tuple[str, str, str, str], **told: object) -> Pair:
    """Return a pair of scans with label maps."""
    keys = ("fixed", "fixed_label", "moving", "moving_label")
    files = {key: DATA / folder / f"{stem}.nii.gz" for key, stem in zip(keys, stems, strict=True)}
    return replace(Pair(name, files, contests=MORE_DICE), **told)  # type: ignore[arg-type]


MORE_DICE = (Contest("Dice", "elastix"), Contest("Dice", "syn"))
PHANTOM = {"TRE voxel": 0.5, "Dice": 0.97, "folds %": 0.0, "s": 60}
WHOLE = {"folds in label %": 0.0, "s": 120}
REAL = {"TRE mm": 1.45, "median mm": 1.1, "p95 mm": 3.0, "Dice": 0.9856, "folds %": 0.01, **WHOLE}
SEMI = {"TRE mm": 0.5, "p95 mm": 1.1, "Dice": 0.988, "folds %": 0.0, "MiB": 4096, "MiB above": 2048, **WHOLE}
COPD = {"TRE mm": 0.45, "p95 mm": 0.95, "folds in label %": 0.0}
D18 = {"TRE mm of liver": 2.5, "TRE mm of wall": 2.6, "max mm of wall": 12.0, "folds %": 0.01}
D23 = {"TRE mm of liver": 0.95, "TRE mm of wall": 1.35, "folds %": 0.01}
# 1.15 times what the true motion, a spline through keypoints, leaves at the landmarks
BLOBS_2, BLOBS_8 = ({"TRE mm": round(1.15 * left, 2), "folds in label %": 0.0} for left in (2.55, 2.48))
FASTER_REAL, FASTER_SEMI = Contest("s", "elastix", 0.6), Contest("s", "elastix", 0.5)

PAIRS = [
    Pair("phantom", limits=PHANTOM),
    _lung("lung_ct_real", "lung_ct_real", REAL, FASTER_REAL),
    _lung("lung_ct_semi_a", "lung_ct_semi/a", SEMI, FASTER_SEMI),
    _lung("lung_ct_semi_b", "lung_ct_semi/b", SEMI, FASTER_SEMI),
    _lung("lung_copd_anatomy_1", "lung_copd/anatomy_1", COPD),
    _lung("lung_copd_blobs_2", "lung_copd/blobs_2", BLOBS_2),
    _lung("lung_copd_blobs_8", "lung_copd/blobs_8", BLOBS_8),
    _breathing("liver_mr_d18", "liver_mr/d18", D18),
    _breathing("liver_mr_d23", "liver_mr/d23", D23),
    _segmented("brain_mr", "brain_mr", ("fixed", "fixed_seg", "moving", "moving_seg")),
    *(
        _segmented(
            f"head_neck_{f}_{m}",
            "head_neck_ct",
            (f"pt_{f}_ct", f"pt_{f}_seg", f"pt_{m}_ct", f"pt_{m}_seg"),
            group="head_neck",
            limits={"folds in label %": 0.0},
        )
        for f, m in permutations((34, 54, 60, 109), 2)
    ),
]
