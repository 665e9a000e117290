"""Surface meshes of other programs, by the package meshio: their vertices, and the same mesh with other ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from scripts.errors import PairError
from scripts.files import unreadable, write_whole

MESH_SUFFIXES = (".vtk", ".vtu", ".ply", ".stl")
WITHOUT_MARKS = (".stl",)  # formats that hold nothing but triangles
FLAG = "valid"  # of the vertices: 1 where the map knows them, else 0

Save = Callable[[Path, np.ndarray, np.ndarray], None]


def read_mesh(path: Path, space: str) -> tuple[np.ndarray, Save]:
    """The vertices (N, 3), float64, in mm, and what writes the mesh with others, with the vertex data ``valid``.

    Raises PairError for a file that cannot be read, for voxel indices, and for a header that names another space.
    """
    meshio = meshio_package()
    if space == "voxel":
        raise PairError(f"{path}: a mesh is in mm; give --space=lps or --space=ras")
    try:
        head = path.open("rb").read(400).decode("ascii", errors="replace").upper()
        mesh = meshio.read(path)
    except (OSError, ValueError, KeyError, IndexError, AssertionError, meshio.ReadError) as error:
        raise unreadable(path, error) from error
    except SystemExit as stop:  # what meshio does when no reader knows the content
        raise PairError(f"cannot read {path}: no mesh in it; check the path, or make or copy the file again") from stop
    told = next((name for name in ("lps", "ras") if f"SPACE={name.upper()}" in head), space)
    if told != space:
        raise PairError(f"{path} says in its header that it is in {told}, not {space}; give --space={told}")
    points = np.asarray(mesh.points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise PairError(f"{path}: expected finite vertices in 3D, got {points.shape}; make the mesh again")

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        if not known.all() and target.name.lower().endswith(WITHOUT_MARKS):
            what = f"{int((~known).sum())} vertices lie outside the range of the map, and {target.suffix} cannot mark them"
            raise PairError(f"{path}: {what}; convert the mesh to .vtk or .ply")
        data = {} if target.name.lower().endswith(WITHOUT_MARKS) else {FLAG: known.astype(np.uint8)}
        moved = meshio.Mesh(found, mesh.cells, point_data={**mesh.point_data, **data}, cell_data=mesh.cell_data)
        write_whole(target, lambda temporary: meshio.write(temporary, moved))

    return points, save


def meshio_package() -> Any:
    """The package ``meshio``; raises PairError where it is not installed."""
    meshio, found = optional_import("meshio")
    if not found:
        raise PairError("surface meshes need the package meshio: run pip install meshio")
    return meshio
