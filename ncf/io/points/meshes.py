"""Surface meshes of other programs, by the package vtk: their vertices, and the same mesh with other vertices."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import write_whole
from ncf.core.packages import optional
from ncf.io.points.base import MM_SPACES, PointFile, PointFormat

VTK_CLASSES = {  # module, reader and writer of each in vtk
    ".vtk": ("vtkIOLegacy", "vtkPolyDataReader", "vtkPolyDataWriter"),
    ".ply": ("vtkIOPLY", "vtkPLYReader", "vtkPLYWriter"),
    ".stl": ("vtkIOGeometry", "vtkSTLReader", "vtkSTLWriter"),
}
MARKING = ".vtk"  # the only format that holds data of vertices
FLAG = "valid"  # of the vertices: 1 where the map knows them, else 0
LEGACY_VERSION = 42  # 4.2: programs from before 2020 do not read newer ones
HEADERS = {space: f"SPACE={space.upper()}" for space in ("lps", "ras")}  # as 3D Slicer writes it in a header


class Kind(NamedTuple):
    """The vtk classes that read and write one format."""

    reader: Any
    writer: Any


def read(path: Path, space: str | None) -> PointFile:
    """Read the vertices of a mesh in mm; written back, a .vtk gets the vertex data ``valid``.

    Args:
        path: of the file.
        space: lps or ras.

    Raises:
        PairError: the file cannot be read, or its header names another space.
    """
    space = str(space)
    reader = _kind(path).reader()
    mesh = _read(reader, path)
    header = str(reader.GetHeader()).upper() if hasattr(reader, "GetHeader") else ""
    told = next((name for name, words in HEADERS.items() if words in header), space)
    if told != space:
        raise PairError(f"{path} says in its header that it is in {told}, not {space}; give the space {told}")
    to_numpy = _vtk("util.numpy_support", "vtk_to_numpy")
    points = np.array(to_numpy(mesh.GetPoints().GetData()), dtype=np.float64)
    if not np.isfinite(points).all():
        raise PairError(f"{path} has vertices that are not finite; make the mesh again")
    return PointFile(points, space, lambda target, found, known: _save(target, mesh, found, known=known, space=space))


def _read(reader: Any, path: Path) -> Any:
    """Return the surface in a file; what vtk complains about becomes one line, and is not printed."""
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
    moved.GetPointData().SetNormals(None)  # they are those of the old surface
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
    module, reader, writer = VTK_CLASSES[path.suffix.lower()]
    return Kind(_vtk(module, reader), _vtk(module, writer))


def _vtk(module: str, name: str) -> Any:
    """Return a part of the package ``vtk``; nothing more of the package is loaded."""
    return getattr(optional("vtk", f"vtkmodules.{module}"), name)


FORMATS = (
    PointFormat(
        name="mesh",
        suffixes=tuple(VTK_CLASSES),
        sentence="the vertices of a surface, by the package vtk",
        read=read,
        spaces=MM_SPACES,
    ),
)
