"""Points and surfaces in files: read, moved, written back, and marked where nothing is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncf.core.errors import PairError
from ncf.io.points.base import MARK, in_ras
from ncf.io.points.table import read_points_file
from tests.refusing import refused

WRITTEN_MM = 1e-6  # coordinates are written to that
SINGLE_MM = 1e-5  # of meshes, whose formats hold float32
KNOWN = np.array([True, False, True])
MOVED = np.array([[1.25, -2.5, 3.0], [9.0, 9.0, 9.0], [-0.5, 1e-7, 7.125]])


def written(path: Path, target: Path, space: str | None = None, known: np.ndarray = KNOWN) -> Any:
    """The points that were read, after three others took their place in ``target``."""
    file = read_points_file(path, space)
    file.save(target, MOVED, known)
    return file


@pytest.mark.parametrize("header", ["name,x,y,z,more", "a,b,c", ""])
def test_csv_keeps_its_other_columns_and_gets_a_flag(tmp_path: Path, header: str) -> None:
    named = header.startswith("name")
    rows = [f"p{n},{n}.5,{n + 1},-{n}e1,note" if named else f"{n}.5,{n + 1},-{n}e1" for n in range(3)]
    (tmp_path / "in.csv").write_text("\n".join([header, *rows] if header else rows), encoding="utf-8")
    file = written(tmp_path / "in.csv", tmp_path / "out.csv", "ras")
    assert file.points.tolist() == [[n + 0.5, n + 1, -10.0 * n] for n in range(3)] and file.space == "ras"
    lines = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    if header:
        assert lines.pop(0) == [*header.split(","), "valid"]
    first = 1 if named else 0
    assert [line[-1] for line in lines] == ["1", "0", "1"]
    assert lines[1][first : first + 3] == ["", "", ""]  # nothing is invented
    assert [lines[n][0] for n in range(3)] == ["p0", "p1", "p2"] if named else True
    found = np.array([[float(v) for v in lines[n][first : first + 3]] for n in (0, 2)])
    np.testing.assert_allclose(found, MOVED[KNOWN], atol=WRITTEN_MM)


def test_a_header_that_names_a_side_says_which_columns_were_carried(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("fixed_i,fixed_j,fixed_k,moving_i\n1,2,3,4\n5,6,7,8\n9,9,9,9\n", encoding="utf-8")
    written(tmp_path / "in.csv", tmp_path / "out.csv", "voxel")
    header = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[0]
    assert (
        header == "carried_moving_i,carried_moving_j,carried_moving_k,moving_i,valid"
    )  # they are of the other side now


@pytest.mark.parametrize("names", ["fixed_i,fixed_j,fixed_k,moving_i,moving_j,moving_k", "i,j,k,a,b,c"])
def test_voxel_indices_are_no_mm(tmp_path: Path, names: str) -> None:
    (tmp_path / "in.csv").write_text(f"{names}\n1,2,3,4,5,6\n", encoding="utf-8")
    first = ", ".join(names.split(",")[:3])
    with pytest.raises(PairError, match=f"its columns {first} are not in ras; give the space voxel"):
        read_points_file(tmp_path / "in.csv", "ras")
    assert read_points_file(tmp_path / "in.csv", "voxel").points.tolist() == [[1, 2, 3]]


def markups(system: str) -> dict[str, Any]:
    """What Slicer saves: three points, and one that was never set."""
    points = [
        {"id": str(n), "label": f"F-{n}", "position": [1.5 * n, -n, 2.0], "positionStatus": "defined"} for n in range(3)
    ]
    unset = {"id": "9", "label": "F-9", "position": [0.0, 0.0, 0.0], "positionStatus": "undefined"}
    own = {"type": "Fiducial", "coordinateSystem": system, "controlPoints": [points[0], unset, *points[1:]]}
    return {"@schema": "markups-schema-v1.0.3", "markups": [{**own, "measurements": [{"name": "length"}]}]}


@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_slicers_points_keep_their_system_and_lose_their_status(tmp_path: Path, system: str) -> None:
    (tmp_path / "in.mrk.json").write_text(json.dumps(markups(system)), encoding="utf-8")
    file = written(tmp_path / "in.mrk.json", tmp_path / "out.mrk.json")
    assert file.space == system.lower() and file.points.tolist() == [[0, 0, 2], [1.5, -1, 2], [3, -2, 2]]
    (markup,) = json.loads((tmp_path / "out.mrk.json").read_text())["markups"]
    assert markup["coordinateSystem"] == system and "measurements" not in markup
    first, unset, lost, last = markup["controlPoints"]
    np.testing.assert_allclose([first["position"], last["position"]], MOVED[KNOWN], atol=WRITTEN_MM)
    assert unset == markups(system)["markups"][0]["controlPoints"][1]
    assert lost["positionStatus"] == "undefined" and lost["description"] == MARK and lost["label"] == "F-1"
    assert read_points_file(tmp_path / "out.mrk.json", None).points.shape == (2, 3)


@pytest.mark.parametrize(("system", "space"), [("LPS", "lps"), ("0", "ras"), ("1", "lps")])
@pytest.mark.parametrize("tail", ["", ",2,0"])
def test_the_older_list_of_slicer_is_marked_too(tmp_path: Path, system: str, space: str, tail: str) -> None:
    head = [
        "# Markups fiducial file version = 4.11",
        f"# CoordinateSystem = {system}",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis",
    ]
    rows = [f'{n},{n}.5,-{n},4,0,0,0,1,1,1,0,"F, {n}",,node{tail}' for n in range(3)]
    (tmp_path / "in.fcsv").write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")
    file = written(tmp_path / "in.fcsv", tmp_path / "out.fcsv")
    assert file.space == space and file.points.tolist() == [[n + 0.5, -n, 4] for n in range(3)]
    lines = (tmp_path / "out.fcsv").read_text().splitlines()
    assert lines[:3] == head
    first, lost, last = csv.reader(lines[3:])
    np.testing.assert_allclose(np.array([first[1:4], last[1:4]], float), MOVED[KNOWN], atol=WRITTEN_MM)
    assert first[4:] == next(csv.reader(rows[:1]))[4:]
    assert lost[1:4] == ["0"] * 3 and lost[8:10] == ["0", "0"] and lost[11:13] == ["F, 1", MARK]
    assert not tail or lost[14] == "0"


def surface(path: Path, header: str = "") -> None:
    """Two triangles, as vtk itself writes them."""
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    from ncf.io.points.meshes import VTK_CLASSES, _vtk

    points, cells, mesh = vtkPoints(), vtkCellArray(), vtkPolyData()
    for corner in ((0.0, 0.0, 1.5), (1.0, 0.0, 1.5), (0.0, 1.0, 1.5)):
        points.InsertNextPoint(corner)
    cells.InsertNextCell(3, (0, 1, 2))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    module, _, name = VTK_CLASSES[path.suffix]
    writer = _vtk(module, name)()
    if header:
        writer.SetHeader(header)
    writer.SetInputData(mesh)
    writer.SetFileName(str(path))
    writer.Write()


@pytest.mark.parametrize("suffix", [".vtk", ".ply", ".stl"])
def test_a_surface_keeps_its_triangles(tmp_path: Path, suffix: str) -> None:
    surface(tmp_path / f"in{suffix}")
    everything = np.ones(3, dtype=bool)
    for name in ("out", "again"):
        file = written(tmp_path / f"in{suffix}", tmp_path / f"{name}{suffix}", "ras", everything)
    assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    assert file.points.tolist() == [[0, 0, 1.5], [1, 0, 1.5], [0, 1, 1.5]]
    found = read_points_file(tmp_path / f"out{suffix}", "ras").points
    np.testing.assert_allclose(found, MOVED, atol=SINGLE_MM)


def test_a_vtk_surface_says_what_is_known_and_in_which_space(tmp_path: Path) -> None:
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOLegacy import vtkPolyDataReader

    surface(tmp_path / "in.vtk", header="3D Slicer output. SPACE=LPS")
    refused("in lps, not ras; give the space lps", read_points_file, tmp_path / "in.vtk", "ras")
    written(tmp_path / "in.vtk", tmp_path / "out.vtk", "lps")
    reader = vtkPolyDataReader()
    reader.SetFileName(str(tmp_path / "out.vtk"))
    reader.Update()
    assert "SPACE=LPS" in reader.GetHeader() and reader.GetOutput().GetNumberOfPolys() == 1
    assert vtk_to_numpy(reader.GetOutput().GetPointData().GetArray("valid")).tolist() == KNOWN.tolist()
    for suffix in (".ply", ".stl"):
        surface(tmp_path / f"in{suffix}")
        refused(
            "1 vertices lie outside.*cannot mark them",
            written,
            tmp_path / f"in{suffix}",
            tmp_path / f"out{suffix}",
            "lps",
        )
        assert not (tmp_path / f"out{suffix}").exists()


REFUSED = [
    ("a.csv", "1,2,3", None, "give the space: lps, ras, voxel"),
    ("a.csv", "1,2,3\n4,x,6", "ras", "expected three numbers in every line"),
    ("a.csv", "1,2\n", "ras", "expected three numbers"),
    ("a.csv", "1,2,nan\n", "ras", "expected three finite numbers"),
    ("a.csv", "x,y,z\n", "ras", "holds no points"),
    ("a.csv", "# comment\n1,2,3\n", "ras", "'# comment', is no header of x,y,z"),
    (
        "a.mrk.json",
        json.dumps(markups("LPS")).replace('"Fiducial"', '"ROI"'),
        None,
        "holds a ROI, which is more than its points",
    ),
    ("a.mrk.json", json.dumps(markups("LPS")), "ras", "names its own coordinate system"),
    ("a.mrk.json", "{}", None, "no markups file of 3D Slicer"),
    ("a.mrk.json", "[1", None, "no markups file of 3D Slicer"),
    ("a.mrk.json", json.dumps(markups("IJK")), None, r"in \['IJK'\]"),
    ("a.fcsv", "1,2,3,4\n", None, "# CoordinateSystem = LPS"),
    ("a.fcsv", "# CoordinateSystem = 0\n1,2,x,4\n", None, "expected id,x,y,z"),
    ("a.fcsv", "# CoordinateSystem = 0\n", None, "holds no points"),
    ("a.vtk", "nothing", "ras", "cannot read"),
    ("a.ply", "nothing", "ras", "cannot read"),
    ("a.stl", "nothing", "ras", "cannot read"),
    ("a.stl", "nothing", "voxel", "is in mm; give the space lps or ras"),
    ("a.obj", "", "ras", "points come as .csv"),
]


@pytest.mark.parametrize(("name", "text", "space", "telling"), REFUSED, ids=[f"{r[0]}-{r[3][:20]}" for r in REFUSED])
def test_what_is_not_understood_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture, name: str, text: str, space: str | None, telling: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    refused(telling, read_points_file, tmp_path / name, space)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    for name in ("a.csv", "a.vtk"):
        refused("cannot read", read_points_file, tmp_path / name, "ras")


def test_lps_is_ras_with_two_signs() -> None:
    assert in_ras(np.array([[1.0, 2.0, 3.0]]), "lps").tolist() == [[-1.0, -2.0, 3.0]]
    assert in_ras(np.array([[1.0, 2.0, 3.0]]), "ras").tolist() == [[1.0, 2.0, 3.0]]
