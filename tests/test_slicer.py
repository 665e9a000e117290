"""3D Slicer's own code opens what is written, and what it writes is read: the package slicer-core as referee.

``NCF_SLICER_PYTHON`` names a Python that has it; CONTRIBUTING.md says how to make one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from ncf.io.fields.base import FieldToSave
from ncf.io.fields.table import field_formats, load_map
from ncf.io.itk_transforms import affine_transform, save_transforms
from ncf.io.nifti import save_image
from ncf.io.points.table import read_points_file
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.use.dicom import export_dicom
from tests.dicom_pair import AFFINE, SHAPE, write_pair
from tests.refusing import refused
from tests.test_dicom_out import field, read_linearly

__all__ = ["field"]  # a fixture
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
POINT_MM = 1e-3
ANSWERS = "answers: "
Ask = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]
WRITTEN = (".nii.gz", ".nrrd", ".mha", ".h5", ".tfm")


@pytest.fixture(scope="module")
def ask() -> Ask:
    """Hands jobs to Slicer's code in a process of its own."""
    python = os.environ.get("NCF_SLICER_PYTHON", str(ROOT / ".venv-slicer" / "bin" / "python"))
    if not Path(python).exists():
        pytest.skip(f"no Slicer: {python} is missing; see CONTRIBUTING.md, or set NCF_SLICER_PYTHON")

    def answers(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        lines = "\n".join(json.dumps(job) for job in jobs)
        command = [python, str(ROOT / "tests" / "slicer_reader.py")]
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, input=lines, capture_output=True, text=True, env=alone)
        assert done.returncode == 0, done.stderr[-2000:]
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(ANSWERS)]
        found: list[dict[str, Any]] = json.loads(line.removeprefix(ANSWERS))
        return found

    return answers


def oblique_map() -> tuple[SpatialMap, np.ndarray]:
    """A rough map on an oblique grid of unequal sizes, and points in RAS mm on its voxels."""
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() @ np.diag([-2.0, -1.5, 3.0])
    affine[:3, 3] = 20, 30, -7
    grid = Grid((12, 10, 8), affine)
    values = torch.from_numpy(rng.normal(size=(3, *grid.shape)).astype(np.float32))
    at = np.vstack([rng.integers(0, grid.shape, (20, 3)), [[0, 0, 0], [11, 9, 7]]])
    return SpatialMap(values, grid), apply_affine(affine, at)


def test_a_map_leads_points_where_slicer_leads_them(tmp_path: Path, ask: Ask) -> None:
    made, points = oblique_map()
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = Rotation.from_euler("z", 5, degrees=True).as_matrix(), (3, -2, 1)
    paths = []
    for name in ("nii.gz", "nrrd", "mha", "h5", "tfm", "composite"):
        entry = field_formats()[name]
        paths.append(tmp_path / f"field{entry.suffix}")
        entry.save(paths[-1], FieldToSave(made.field, made.grid, made.grid, turned))
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0])
    save_transforms(tmp_path / "affine.tfm", [affine_transform(flipped @ turned @ flipped)])  # LPS
    jobs = [{"kind": "transform", "path": str(path), "points": points.tolist()} for path in paths]
    jobs.append({**jobs[0], "path": str(tmp_path / "affine.tfm")})
    *fields, linear = ask(jobs)
    ours, _ = made.to_moving(points)
    assert np.abs(ours - points).max() > 1
    for path, answer in zip(paths, fields, strict=True):
        assert np.abs(np.array(answer["points"]) - ours).max() < POINT_MM, path.name
    assert np.abs(np.array(linear["points"]) - apply_affine(turned, points)).max() < POINT_MM
    told = dict(zip((path.name for path in paths), (answer["told"] for answer in fields), strict=True))
    # docs/decisions/0026-intent.md: Slicer wants 1006, under which ITK before 5.4 reads no field at all
    assert "'1006'" in told.pop("field.nii.gz")[0]
    assert not any(told.values())


def test_between_voxels_slicer_interpolates_smoothly(tmp_path: Path, ask: Ask) -> None:
    """A map that is a line from voxel to voxel is the same for its cubic interpolation and for our linear one."""
    made, _ = oblique_map()
    index = torch.from_numpy(np.indices(made.grid.shape).astype(np.float32))
    sheared = SpatialMap(torch.stack([0.3 * index[1] - 1, 0.2 * index[2], 0.1 * index[0] + 0.5]), made.grid)
    field_formats()["h5"].save(tmp_path / "f.h5", FieldToSave(sheared.field, made.grid, made.grid, None))
    at = np.random.default_rng(1).uniform(1.5, np.array(made.grid.shape) - 2.5, (30, 3))
    points = apply_affine(made.grid.affine, at)
    (answer,) = ask([{"kind": "transform", "path": str(tmp_path / "f.h5"), "points": points.tolist()}])
    assert np.abs(np.array(answer["points"]) - sheared.to_moving(points)[0]).max() < POINT_MM


def test_what_slicer_writes_is_read(tmp_path: Path, ask: Ask) -> None:
    made, points = oblique_map()
    field_formats()["nrrd"].save(tmp_path / "field.nrrd", FieldToSave(made.field, made.grid, made.grid, None))
    paths = [str(tmp_path / f"theirs{suffix}") for suffix in WRITTEN]
    ask([{"kind": "transform", "path": str(tmp_path / "field.nrrd"), "write": paths}])
    ours, _ = made.to_moving(points)
    for path in paths:
        found, known = load_map(path).to_moving(points)
        assert known.all() and np.abs(found - ours).max() < POINT_MM, path
    text = Path(paths[1]).read_bytes()
    assert b"displacement field type:=resampling" in text
    (tmp_path / "modeling.nrrd").write_bytes(text.replace(b"type:=resampling", b"type:=modeling"))
    (answer,) = ask([{"kind": "transform", "path": str(tmp_path / "modeling.nrrd"), "points": ours.tolist()}])
    assert np.abs(np.array(answer["points"]) - ours).max() > 1  # it leads the other way
    refused("of type 'modeling', which leads from moving to fixed points", load_map, tmp_path / "modeling.nrrd")


def test_markups_are_where_slicer_sees_them(tmp_path: Path, ask: Ask) -> None:
    _, points = oblique_map()
    points = points[:4]
    rows = [f"{n},{x},{y},{z},0,0,0,1,1,1,0,P{n},,\n" for n, (x, y, z) in enumerate(points)]
    head = (
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = 0\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock"
    )
    (tmp_path / "in.fcsv").write_text(f"{head},label,desc,associatedNodeID\n{''.join(rows)}", encoding="utf-8")
    one = [{"label": f"P{n}", "position": p, "positionStatus": "defined"} for n, p in enumerate(points.tolist())]
    content = {"markups": [{"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": one}]}
    (tmp_path / "in.mrk.json").write_text(json.dumps(content), encoding="utf-8")
    moved, known = points + np.array([1.5, -2.0, 0.25]), np.array([True, True, False, True])
    for name in ("in.fcsv", "in.mrk.json"):
        read_points_file(tmp_path / name, None).save(tmp_path / f"out{name[2:]}", moved, known)
    names = ("in.fcsv", "in.mrk.json", "out.fcsv", "out.mrk.json")
    answers = ask([{"kind": "markups", "path": str(tmp_path / name)} for name in names])
    for name, answer in zip(names, answers, strict=True):
        wanted = {f"P{n}": p for n, p in enumerate(points if name.startswith("in") else moved)}
        if name == "out.mrk.json":
            del wanted["P2"]  # not known, so undefined
        found = answer["points"]
        assert set(wanted) <= set(found), name
        assert all(np.abs(np.array(found[label]) - wanted[label]).max() < POINT_MM for label in wanted if label != "P2")
        assert name != "out.mrk.json" or "P2" not in found


def test_labels_are_segments_in_slicer(tmp_path: Path, ask: Ask) -> None:
    made, _ = oblique_map()
    labels = np.zeros(made.grid.shape, np.uint8)
    labels[2:5, 1:4, 2:7], labels[7:11, 5:9, 1:3] = 3, 250
    save_image(tmp_path / "labels.nii.gz", labels, made.grid.affine)
    (answer,) = ask([{"kind": "segmentation", "path": str(tmp_path / "labels.nii.gz")}])
    assert set(answer["segments"]) == {"3", "250"}
    for value in (3, 250):
        index = np.argwhere(labels == value)
        found = answer["segments"][str(value)]
        assert found["voxels"] == len(index)
        assert np.abs(apply_affine(made.grid.affine, index.mean(axis=0)) - found["centre"]).max() < POINT_MM


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_warped_series_is_a_volume_in_slicer(tmp_path: Path, ask: Ask, field: Path, modality: str) -> None:
    fixed, moving, values = write_pair(tmp_path, modality=modality)
    (folder,) = export_dicom(field, tmp_path / "out", kind="dicom", reference=fixed, moving=moving)
    index = np.random.default_rng(0).integers(0, SHAPE, (30, 3))
    at = apply_affine(AFFINE, index).tolist()
    (answer,) = ask([{"kind": "volume", "path": str(folder / "0001.dcm"), "points": at}])
    assert answer["size"] == list(SHAPE) and answer["off"] < POINT_MM
    wanted = read_linearly(values)[tuple(index.T)]
    assert np.abs(np.array(answer["values"]) - wanted).max() <= 0.501
