"""Bent heads and necks: planning CT against the CT of a PET/CT of the same patient in another posture, both ways.

``python -m benchmarks.bent [--patients 34,60] [--bends 10,20] [--methods ours,elastix] [--output_dir D]``

Each patient's CT is bent by a formula (`benchmarks.posture`) and shown by another scanner (`benchmarks.pet_ct`), so the
truth is known at any point: 300 landmarks in head, jaw, neck and torso. The pairs lie in OUTPUT_DIR/pairs; the rest is
as `benchmarks.run` leaves it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import binary_erosion

from benchmarks import table
from benchmarks.disturb import Scan
from benchmarks.methods import Settings, known
from benchmarks.options import chosen, flag, python, words
from benchmarks.pairs import DATA, Contest, Pair
from benchmarks.pet_ct import BODY_HU, Scanner, planning
from benchmarks.posture import MANDIBLE, SHARES, Posture, find_posture
from benchmarks.run import perform

PATIENTS = ("34", "54", "60", "109")
BACKGROUNDS = ("air", "stored")  # around the patient of the planning CT: air with noise, or one value as in the data
WAYS = ("ct_fixed", "pet_ct_fixed")
JAW_DEG = 4.0
COUNTS = {"head": 90, "jaw": 60, "neck": 100, "torso": 50}
WHOLE, NOTHING_OF = 0.999, 0.001  # a point turns with the skull above, stays with the torso below
DEEP_VOXELS = 2  # landmarks keep this far from the skin
MARGIN_VOXELS = 2  # and from the end of the other scan
STORED_ZERO = 1024  # the data store HU + 1024
LIMITS = {"TRE voxel": 1.0, "folds in label %": 0.0}
CONTESTS = (Contest("TRE mm", "elastix", 0.5), Contest("Dice", "elastix"))


def main(
    patients: str = "34,60",
    bends: str = "10,20",
    methods: str = "ours,none,elastix",
    *,
    seeds: str = "0",
    threads: int = 2,
    device: str = "auto",
    output_dir: str | None = None,
    peers_python: str | None = None,
    keep_fields: bool | str = False,
    background: str = "air",
) -> None:
    """Make the pairs, run the methods, print and write the table; exit with status 1 when our default misses a limit.

    Pairs and runs that are done in OUTPUT_DIR are not made again.

    Args:
        patients: of ../shared/data/head_neck_ct.
        bends: degrees by which the skull is bent against the torso, whole numbers.
        methods: names as for `benchmarks.run`.
        seeds: as for `benchmarks.run`.
        threads: as for `benchmarks.run`.
        device: as for `benchmarks.run`.
        output_dir: as for `benchmarks.run`.
        peers_python: as for `benchmarks.run`.
        keep_fields: as for `benchmarks.run`; `benchmarks.beside` makes a picture of them.
        background: of the planning CT: air, or stored for the data set's one value wherever the patient is not.
    """
    names = chosen({name: name for name in PATIENTS}, words(patients), what="patient")
    programs = chosen(known(), words(methods), what="method")
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-bent-")).absolute()
    settings = Settings(folder, threads, device, python(peers_python), flag("keep_fields", keep_fields))
    pairs = _made(names, [int(bend) for bend in words(bends)], folder / "pairs", background=background)
    seeded = [int(seed) for seed in words(seeds)]
    perform([(p, m, s) for p in pairs for m in programs for s in (seeded if m.seeded else [None])], settings=settings)
    missed = table.make(folder, pairs)
    print(f"\n{(folder / table.TABLE).read_text(encoding='utf-8')}\nresults in {folder}")
    if missed:
        sys.exit(1)


def _made(patients: Sequence[str], bends: Sequence[int], folder: Path, *, background: str) -> list[Pair]:
    """Return the pairs of all patients and bends; exit with one line if no patient's scan is there."""
    chosen({word: word for word in BACKGROUNDS}, [background], what="background")
    pairs = []
    for name in patients:
        source = DATA / "head_neck_ct" / f"pt_{name}_ct.nii.gz"
        if not source.exists():
            print(f"{name}: left out, {source} is not there")
            continue
        for bend in bends:
            pairs += bent_pairs(name, bend, folder, background=background)
    if not pairs:
        sys.exit("error: no pairs, because no patient's scan is there")
    return pairs


def bent_pairs(patient: str, bend: int, folder: Path, *, background: str = "air") -> list[Pair]:
    """Return a patient's two pairs: CT fixed, and PET/CT fixed. Their files are made if they are not there.

    Args:
        patient: of ../shared/data/head_neck_ct.
        bend: degrees.
        folder: has a folder for each patient and bend.
        background: of `BACKGROUNDS`.
    """
    name = patient if background == "air" else f"{patient}-{background}"
    place = folder / f"{name}_{bend}"
    pairs = _pairs(name, bend, place)
    if any(pair.missing for pair in pairs):
        stem = DATA / "head_neck_ct" / f"pt_{patient}"
        ct, seg = (nib.load(f"{stem}_{what}.nii.gz") for what in ("ct", "seg"))
        hu = np.asarray(ct.dataobj, np.float32) - STORED_ZERO  # type: ignore[attr-defined]
        label = np.asarray(seg.dataobj).astype(np.uint8)  # type: ignore[attr-defined]
        source = Scan(hu, label, np.asarray(ct.affine))  # type: ignore[attr-defined]
        write_bent(source, place, bend_deg=bend, background=background)
    return pairs


def pairs_in(folder: Path) -> list[Pair]:
    """Return the pairs that were made in a folder.

    Args:
        folder: has a folder for each patient and bend; may be missing.
    """
    pairs = []
    for path in sorted(folder.glob("*_*")):
        patient, _, bend = path.name.rpartition("_")
        pairs += [pair for pair in _pairs(patient, bend, path) if not pair.missing]
    return pairs


def _pairs(patient: str, bend: int | str, folder: Path) -> list[Pair]:
    """Return a patient's two pairs, made or not."""
    return [
        Pair(f"{patient}_bent_{bend}_{way}", files(folder, way), LIMITS, CONTESTS, group=f"bent_{bend}") for way in WAYS
    ]


def files(folder: Path, way: str) -> dict[str, Path]:
    """Return the paths of a pair by key.

    Args:
        folder: of the patient and the bend.
        way: of `WAYS`.
    """
    order = ("ct", "pet_ct") if way == WAYS[0] else ("pet_ct", "ct")
    paths = {key: folder / f"{scan}.nii.gz" for key, scan in zip(("fixed", "moving"), order, strict=True)}
    paths |= {f"{key}_label": folder / f"{scan}_label.nii.gz" for key, scan in zip(tuple(paths), order, strict=True)}
    return paths | {f"landmarks_{name}": folder / f"{way}_{name}.csv" for name in COUNTS}


def write_bent(
    source: Scan,
    folder: Path,
    *,
    bend_deg: float,
    jaw_deg: float = JAW_DEG,
    scanner: Scanner | None = None,
    background: str = "air",
    counts: Mapping[str, int] = COUNTS,
) -> None:
    """Write the CT, its bent PET/CT, their labels, and the landmarks of both ways.

    Args:
        source: HU, and labels of organs as in ../shared/data/head_neck_ct.
        folder: is made.
        bend_deg: of the skull against the torso.
        jaw_deg: by which the jaw opens.
        scanner: of the PET/CT.
        background: of `BACKGROUNDS`.
        counts: of landmarks by region.

    Raises:
        ValueError: organs that are needed are not labelled, or the posture cannot be had without folds.
    """
    assert source.label is not None
    scanner = scanner or Scanner()
    posture = find_posture(source.label, source.affine, bend_deg=bend_deg, jaw_deg=jaw_deg)
    bent = scanner.scanned(source, posture, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, scan in (("ct", planning(source) if background == "air" else source), ("pet_ct", bent)):
        nib.save(nib.Nifti1Image(np.rint(scan.image).astype(np.int16), scan.affine), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(scan.label, scan.affine), folder / f"{name}_label.nii.gz")
    for name, points in landmarks(source, bent, posture, scanner=scanner, counts=counts).items():
        for way, columns in zip(WAYS, (points, np.roll(points, 3, axis=1)), strict=True):
            np.savetxt(folder / f"{way}_{name}.csv", columns, fmt="%.9g", delimiter=",")


def landmarks(
    source: Scan, bent: Scan, posture: Posture, *, scanner: Scanner, counts: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Draw points in the body by region, and find their partners by the formula.

    Args:
        source: the scan that was bent.
        bent: the other scan.
        posture: of the patient there.
        scanner: that made it.
        counts: of points by region.

    Returns:
        Voxel indices (N, 6) by region: in the source, then in the bent scan.
    """
    assert source.label is not None
    random = np.random.default_rng(0)
    deep = np.argwhere(binary_erosion(source.image > BODY_HU, iterations=DEEP_VOXELS))
    voxels = random.permutation(deep) + random.uniform(-0.5, 0.5, deep.shape)
    places = apply_affine(source.affine, voxels)
    there = apply_affine(np.linalg.inv(bent.affine), posture.there(places) + scanner.shift_mm)
    seen = ((there >= MARGIN_VOXELS) & (there <= np.array(bent.image.shape) - 1 - MARGIN_VOXELS)).all(axis=1)
    middle = (scanner.pixels - 1) / 2
    seen &= np.hypot(there[:, 0] - middle, there[:, 1] - middle) <= scanner.pixels / 2 - MARGIN_VOXELS
    voxels, places, there = voxels[seen], places[seen], there[seen]
    share = posture.turned(places) @ SHARES
    jaw = source.label[tuple(np.rint(voxels).astype(int).T)] == MANDIBLE
    regions = {
        "head": (share > WHOLE) & (posture.opened(places) < NOTHING_OF),
        "jaw": jaw,
        "neck": (share > NOTHING_OF) & (share < WHOLE) & ~jaw,
        "torso": share <= NOTHING_OF,
    }
    found = {}
    for name, count in counts.items():
        own = np.flatnonzero(regions[name])[:count]
        if len(own) < count:
            raise ValueError(f"{len(own)} of {count} landmarks found in the {name}, because both scans show too little")
        found[name] = np.hstack([voxels[own], there[own]])
    return found


if __name__ == "__main__":
    fire.Fire(main)
