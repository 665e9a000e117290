"""Opens files with 3D Slicer's own code and tells what it finds; run by a Python that has the package slicer-core.

One job a line as JSON on standard input: its kind, a path, and perhaps points in RAS mm; the answers as one list behind
`ANSWERS`. Nothing of ncf is imported.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import slicer_core as slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

ANSWERS = "answers: "
SCENES: list[Any] = []
IMAGES = (".nii.gz", ".nrrd", ".mha")


def read(node: Any, storage: Any, path: str) -> tuple[Any, list[str]]:
    """A node with the content of a file, and what a user is told meanwhile."""
    scene = slicer.vtkMRMLScene()
    SCENES.append(scene)  # a node does not keep its own
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(path)
    assert storage.ReadData(node), path
    told = storage.GetUserMessages()
    return node, [told.GetNthMessageText(n) for n in range(told.GetNumberOfMessages())]


def transform(path: str, points: list[list[float]], write: list[str]) -> dict[str, Any]:
    """Where fixed points go; and the same transform written again."""
    empty = slicer.vtkMRMLGridTransformNode() if path.endswith(IMAGES) else slicer.vtkMRMLTransformNode()
    node, told = read(empty, slicer.vtkMRMLTransformStorageNode(), path)
    mapped = node.GetTransformFromParent()
    for name in write:
        storage = slicer.vtkMRMLTransformStorageNode()
        node.GetScene().AddNode(storage)
        storage.SetFileName(name)
        assert storage.WriteData(node), name
    return {"points": [mapped.TransformPoint(point) for point in points], "told": told}


def markups(path: str, points: list[list[float]], write: list[str]) -> dict[str, Any]:
    """The points that are set, by label."""
    storage = slicer.vtkMRMLMarkupsFiducialStorageNode() if path.endswith(".fcsv") else None
    node, told = read(slicer.vtkMRMLMarkupsFiducialNode(), storage or slicer.vtkMRMLMarkupsJsonStorageNode(), path)
    found = {}
    for n in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(n) == node.PositionDefined:
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(n, position)
            found[node.GetNthControlPointLabel(n)] = position
    return {"points": found, "told": told}


def volume(path: str, points: list[list[float]], write: list[str]) -> dict[str, Any]:
    """Values at points on voxel centres, and sizes."""
    node, told = read(slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLVolumeArchetypeStorageNode(), path)
    matrix = vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    to_vox = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
    at = np.array(points) @ to_vox[:3, :3].T + to_vox[:3, 3]
    image = node.GetImageData()
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1]).T
    index = np.rint(at).astype(int)
    off = float(np.abs(at - index).max())
    return {"size": list(values.shape), "off": off, "values": [float(values[tuple(i)]) for i in index], "told": told}


def segmentation(path: str, points: list[list[float]], write: list[str]) -> dict[str, Any]:
    """The number of voxels of each segment and its centre, by the value of its label."""
    node, told = read(slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode(), path)
    found = {}
    for name in node.GetSegmentation().GetSegmentIDs():
        segment = node.GetSegmentation().GetSegment(name)
        map_ = node.GetBinaryLabelmapInternalRepresentation(name)
        values = vtk_to_numpy(map_.GetPointData().GetScalars()).reshape(map_.GetDimensions()[::-1]).T
        matrix = vtkMatrix4x4()
        map_.GetImageToWorldMatrix(matrix)
        to_mm = np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
        index = np.argwhere(values == segment.GetLabelValue()) + np.array(map_.GetExtent()[::2])
        centre = index.mean(axis=0) @ to_mm[:3, :3].T + to_mm[:3, 3]
        found[segment.GetLabelValue()] = {"voxels": len(index), "centre": centre.tolist()}
    return {"segments": found, "told": told}


KINDS = {"transform": transform, "markups": markups, "volume": volume, "segmentation": segmentation}

if __name__ == "__main__":
    jobs = [json.loads(line) for line in sys.stdin]
    made = [KINDS[job["kind"]](job["path"], job.get("points", []), job.get("write", [])) for job in jobs]
    print(ANSWERS + json.dumps(made))
