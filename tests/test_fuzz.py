"""Ten thousand damaged files of every format: read as another program reads them, told in a note, or refused in a line.

A process of its own reads each group of formats, because ITK may end the process that reads a damaged file. By hand:
``python -m tests.test_fuzz GROUP COUNT SEED``.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.io import savemat

from ncf.core.errors import PairError
from ncf.io.checkpoint import load_checkpoint, save_checkpoint
from ncf.io.fields.table import load_map
from ncf.io.image_files import read_image
from ncf.io.itk_fields import load_affine
from ncf.io.itk_transforms import FIELD, Part, affine_transform, save_transforms
from ncf.io.nifti import save_itk_field
from ncf.io.pair_lists import read_pairs
from ncf.io.points.table import read_points_file

AFFINE = np.array([[-1.5, 0.2, 0, 40], [0.2, 1.5, 0, 36], [0, 0, 4, -32], [0, 0, 0, 1]])
AFFINE[:2, :2] = [[-1.2, 0.9], [-0.9, -1.2]]
VALUES = np.arange(6 * 7 * 8, dtype="i2").reshape(6, 7, 8)
APART_VOX = 0.02
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
PATIENCE_S = 300
COUNTS = {"nifti": 4000, "itk": 2000, "others": 4000}
Reader = Callable[[Path], object]


def nifti_bytes(kind: Any = nib.Nifti1Image) -> bytes:
    image = kind(VALUES, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    return bytes(image.to_bytes())


def sitk_bytes(folder: Path, name: str) -> bytes:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VALUES.T))
    image.SetSpacing((1.5, 1.5, 4.0))
    image.SetOrigin((-40, -36, -32))
    sitk.WriteImage(image, str(folder / name), False)
    return (folder / name).read_bytes()


def written(folder: Path, name: str, write: Callable[[Path], object]) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


def field_numbers() -> tuple[np.ndarray, np.ndarray]:
    fixed = np.array([3.0, 3, 3, 0, 0, 0, 1, 1, 1, *np.eye(3).ravel()])
    return fixed, np.zeros(81, dtype="f4")


def seeds(group: str, folder: Path) -> Mapping[str, tuple[bytes, Reader]]:
    """The whole files of a group by name, with how each is read."""
    if group == "nifti":
        plain = nifti_bytes()
        return {
            "a.nii": (plain, scan),
            "b.nii": (nifti_bytes(nib.Nifti2Image), scan),
            "c.nii.gz": (gzip.compress(plain, 1), scan),
            "u.nii": (
                written(folder, "u.nii", lambda p: save_itk_field(p, np.zeros((3, 6, 7, 8), "f4"), AFFINE)),
                load_map,
            ),
        }
    if group == "itk":
        return {name: (sitk_bytes(folder, name), scan) for name in ("a.mha", "a.mhd", "a.nrrd")}
    mat = io.BytesIO()
    savemat(mat, {"AffineTransform_double_3_3": np.arange(12.0)[:, None], "fixed": np.zeros((3, 1))}, format="4")
    state = {"weights": {"a": torch.zeros(3)}, "network": {"b": 1}}
    point = {"position": [1.0, 2.0, 3.0], "positionStatus": "defined"}
    marks = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point]}]}
    pairs = {"tensorImageShape": 1, "registration_val": [{"fixed": "a.nii", "moving": "b.nii"}]}
    for name in ("a.nii", "b.nii"):
        (folder / name).touch()
    return {
        "t.tfm": (written(folder, "t.tfm", lambda p: save_transforms(p, [affine_transform(np.eye(4))])), load_affine),
        "m.mat": (mat.getvalue(), load_affine),
        "f.h5": (written(folder, "f.h5", lambda p: save_transforms(p, [Part(FIELD, *field_numbers())])), load_map),
        "f.tfm": (written(folder, "f.tfm", lambda p: save_transforms(p, [Part(FIELD, *field_numbers())])), load_map),
        "n.pt": (written(folder, "n.pt", lambda p: save_checkpoint(p, state)), load_checkpoint),
        "p.fcsv": (b"# CoordinateSystem = LPS\n# columns = id,x,y,z\n1,2,3,4\n", lambda p: read_points_file(p, None)),
        "p.mrk.json": (json.dumps(marks).encode(), lambda p: read_points_file(p, None)),
        "p.csv": (b"label,x,y,z\n1,2,3,4\n2,3,4,5\n", lambda p: read_points_file(p, "ras")),
        "l.json": (json.dumps(pairs).encode(), read_pairs),
        "l.csv": (b"fixed,moving\na.nii,b.nii\n", read_pairs),
    }


class Kept(logging.Handler):
    """Keeps what notes tell."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.told.append(record.getMessage())


NOTES = Kept()


def scan(path: Path) -> None:
    """Read a scan, and hold its grid against SimpleITK's, unless a note tells of it."""
    NOTES.told.clear()
    ours = read_image("x", str(path))
    if NOTES.told:
        return
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return  # SimpleITK refuses what nibabel reads
    if image.GetDimension() != 3:
        return
    theirs = np.eye(4)
    theirs[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    theirs[:3, 3] = image.GetOrigin()
    ends = np.array(list(np.ndindex(2, 2, 2))) * (np.array(ours.shape[1:]) - 1)
    ends = np.column_stack([ends, np.ones(8)])
    affine = ours.affine.numpy()
    off = np.abs(ends @ (LPS @ theirs).T - ends @ affine.T).max()
    size = np.linalg.norm(affine[:3, :3], axis=0).min()
    assert off <= APART_VOX * size, f"the grid lies {off / size:.3g} voxels from SimpleITK's"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Content with a few bytes changed, most of them in the header; or cut, or with a part twice or left out."""
    data = bytearray(content)
    head = min(len(data), 540)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, head if rng.random() < 0.9 else len(data)))
        how = rng.random()
        if how < 0.35:
            data[place % len(data)] = int(rng.integers(256))
        elif how < 0.6:
            data[place % len(data)] ^= 1 << int(rng.integers(8))
        elif how < 0.75:
            odd = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"nan", b"-1", b"0", b"1e999", b"999999999999", b"\xc0\x7f"]
            word = odd[int(rng.integers(len(odd)))]
            data[place : place + len(word)] = word
        elif how < 0.85:
            del data[place : place + int(rng.integers(1, 9))]
        elif how < 0.95:
            data[place:place] = data[place : place + int(rng.integers(1, 9))]
        else:
            del data[max(place, 1) :]
    return bytes(data or b"0")


def campaign(group: str, count: int, seed: int) -> list[str]:
    """What went wrong with so many damaged files, a line each."""
    logging.getLogger("ncf.notes").addHandler(NOTES)
    rng, wrong = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = seeds(group, folder)
        for number in range(count):
            file, (content, read) = list(whole.items())[number % len(whole)]
            (folder / file).write_bytes(mutated(content, rng))
            try:
                read(folder / file)
            except PairError as error:
                if "\n" in str(error):
                    wrong.append(f"{file} {number}: more than a line: {error!r:.200}")
            except Exception as error:
                wrong.append(f"{file} {number}: {type(error).__name__}: {error!s:.200}")
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("group", COUNTS)
def test_damaged_files(group: str) -> None:
    command = [sys.executable, "-m", "tests.test_fuzz", group, str(COUNTS[group]), "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-2000:]}\n{ended.stderr[-1000:]}"


if __name__ == "__main__":
    found = campaign(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print("\n".join(found))
    sys.exit(bool(found))
