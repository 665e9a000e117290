"""Surface meshes of other programs, by the package vtk: their vertices, and the same mesh with other ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import

from scripts.errors import PairError
from scripts.files import write_whole

FORMATS = {  # where vtk keeps a reader and a writer of each
    ".vtk": ("vtkIOLegacy", "vtkPolyDataReader", "vtkPolyDataWriter"),
    ".ply": ("vtkIOPLY", "vtkPLYReader", "vtkPLYWriter"),
    ".stl": ("vtkIOGeometry", "vtkSTLReader", "vtkSTLWriter"),
}
MESH_SUFFIXES = tuple(FORMATS)
MARKING = ".vtk"  # the one that holds data of vertices
FLAG = "valid"  # of the vertices: 1 where the map knows them, else 0
LEGACY_VERSION = 42  # 4.2: newer ones are not read by programs of before 2020
HEADERS = {space: f"SPACE={space.upper()}" for space in ("lps", "ras")}  # as 3D Slicer writes it into a header

Save = Callable[[Path, np.ndarray, np.ndarray], None]


class Kind(NamedTuple):
    """What reads and writes one format."""

    reader: Any
    writer: Any


def read_mesh(path: Path, space: str) -> tuple[np.ndarray, Save]:
    """The vertices (N, 3), float64, in mm, and what writes the mesh with others; a .vtk gets the vertex data ``valid``.

    Raises PairError for a file that cannot be read, for voxel indices, and for a header that names another space.
    """
    if space == "voxel":
        raise PairError(f"{path}: a mesh is in mm; give --space=lps or --space=ras")
    reader = _kind(path).reader()
    mesh = _read(reader, path)
    header = str(reader.GetHeader()).upper() if hasattr(reader, "GetHeader") else ""
    told = next((name for name, words in HEADERS.items() if words in header), space)
    if told != space:
        raise PairError(f"{path} says in its header that it is in {told}, not {space}; give --space={told}")
    to_numpy = _vtk("util.numpy_support", "vtk_to_numpy")
    points = np.array(to_numpy(mesh.GetPoints().GetData()), dtype=np.float64)
    if not np.isfinite(points).all():
        raise PairError(f"{path} has vertices that are not finite; make the mesh again")
    return points, lambda target, found, known: _save(target, mesh, found, known=known, space=space)


def _read(reader: Any, path: Path) -> Any:
    """The surface in a file; what vtk complains of becomes one line, and is not printed."""
    complaints: list[str] = []
    for source in (reader, reader.GetExecutive()):
        for event in ("ErrorEvent", "WarningEvent"):
            source.AddObserver(event, lambda *_: complaints.append("it is damaged or no such mesh"))
    if not path.is_file():
        raise PairError(f"cannot read {path}: there is no such file; check the path")
    reader.SetFileName(str(path))
    reader.Update()
    mesh = reader.GetOutput()
    if complaints or mesh is None or not mesh.GetNumberOfPoints():
        raise PairError(f"cannot read {path}: {[*complaints, 'it holds no vertices'][0]}; make or copy the file again")
    return mesh


def _save(target: Path, mesh: Any, points: np.ndarray, *, known: np.ndarray, space: str) -> None:
    marks = target.suffix.lower() == MARKING
    if not known.all() and not marks:
        what = f"{int((~known).sum())} vertices lie outside the range of the map, and {target.suffix} cannot mark them"
        raise PairError(f"cannot write {target}: {what}; convert the mesh to {MARKING}")
    from_numpy = _vtk("util.numpy_support", "numpy_to_vtk")
    moved = type(mesh)()
    moved.DeepCopy(mesh)
    moved.GetPoints().SetData(from_numpy(points, deep=True))
    moved.GetPointData().SetNormals(None)  # of the surface as it was
    moved.GetCellData().SetNormals(None)
    writer = _kind(target).writer()
    writer.SetFileTypeToBinary()
    if marks:
        flags = from_numpy(known.astype(np.uint8), deep=True)
        flags.SetName(FLAG)
        moved.GetPointData().AddArray(flags)
        writer.SetFileVersion(LEGACY_VERSION)
        writer.SetHeader(HEADERS[space])
    writer.SetInputData(moved)

    def write(temporary: Path) -> None:
        writer.SetFileName(str(temporary))
        if not writer.Write():
            raise OSError("vtk could not write it")

    write_whole(target, write)


def _kind(path: Path) -> Kind:
    module, reader, writer = FORMATS[path.suffix.lower()]
    return Kind(_vtk(module, reader), _vtk(module, writer))


def _vtk(module: str, name: str) -> Any:
    """A part of the package ``vtk``, of which nothing more is loaded; PairError where it is not installed."""
    part, found = optional_import(f"vtkmodules.{module}", name=name)
    if not found:
        raise PairError("surface meshes need the package vtk: run pip install vtk")
    return part
