"""Landmarks from text, with every mistake named by its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ncf.io.landmarks import read_landmarks
from tests.refusing import refused

SHAPES = {"fixed": (9, 12, 10), "moving": (9, 12, 10)}
AFFINES = {"fixed": np.diag([-1.5, -2, 3, 1]), "moving": np.diag([2.0, 2, 2, 1])}
POINTS = np.array([[0, 0, 0, 8.5, 11.5, 9.5], [-0.5, 11.5, 3.25, 1, 2, 3], [4, 4, 4, 5.125, 6, 7]])


def written(path: Path, points: np.ndarray, header: str = "") -> str:
    lines = "".join(",".join(f" {v!r}" for v in row.tolist()) + "\n" for row in points)
    path.write_text(f"{header}{lines}\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "header", ["", "fixed_i,fixed_j,fixed_k,moving_i,moving_j,moving_k\n", "\ufeffx,y,z,x,y,z\r\n"]
)
def test_landmarks_with_and_without_header(tmp_path: Path, header: str) -> None:
    points = read_landmarks({"landmarks": written(tmp_path / "points.csv", POINTS, header)}, SHAPES, AFFINES)
    assert points.dtype == np.float64
    np.testing.assert_array_equal(points, POINTS)


def test_two_files_of_three_columns_are_one_of_six(tmp_path: Path) -> None:
    fixed, moving = (written(tmp_path / f"{n}.csv", half) for n, half in enumerate(np.hsplit(POINTS, 2)))
    np.testing.assert_array_equal(
        read_landmarks({"fixed_landmarks": fixed, "moving_landmarks": moving}, SHAPES, AFFINES), POINTS
    )
    refused("moving_landmarks is missing; give landmarks", read_landmarks, {"fixed_landmarks": fixed}, SHAPES, AFFINES)
    short = written(tmp_path / "short.csv", POINTS[:2, 3:])
    both = {"fixed_landmarks": fixed, "moving_landmarks": short}
    refused("have 3 and 2 points; row by row", read_landmarks, both, SHAPES, AFFINES)
    refused("expected 6 comma-separated columns, line 1 has 3", read_landmarks, {"landmarks": fixed}, SHAPES, AFFINES)
    large = {"fixed_landmarks": written(tmp_path / "large.csv", POINTS[:, 3:] + [1, 0, 0]), "moving_landmarks": moving}
    refused(
        r"line 1 has the fixed point \[9\.5, 11\.5, 9\.5\] outside the fixed image",
        read_landmarks,
        large,
        SHAPES,
        AFFINES,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,1,2,3\n1,2,3,1,2\n", "expected 6 comma-separated columns, line 2 has 5"),
        ("a,b,c\n1,2,3\n", "line 2 has 3"),
        ("1 2 3 1 2 3\n1 2 3 1 2 3", "line 2 has 1"),
        ("i,j,k,i,j,k\n\n1,2,3,1,2,nan\n", "line 3 holds '1,2,3,1,2,nan', expected 6 finite numbers"),
        ("1,2,3,1,2,x\n1,2,3,1,2,3\n", "line 1 holds"),
        ("1,2,3,1,2,3\n1,2,3,,2,3\n", "line 2 holds"),
        ("i,j,k,i,j,k\n", "holds no points; write lines of 6 numbers"),
        ("i,j,k,i,j,k\n1,2,3,1,2,3\n8.6,2,3,1,2,3\n9,0,0,0,0,0\n", r"line 3 has the fixed point \[8\.6, 2\.0, 3\.0\]"),
        ("1,2,3,1,-0.51,3\n", r"line 1 has the moving point .* outside the moving image of shape \(9, 12, 10\)"),
    ],
)
def test_landmarks_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    refused(
        rf"^landmarks .*points\.csv: .*{message}",
        read_landmarks,
        {"landmarks": str(tmp_path / "points.csv")},
        SHAPES,
        AFFINES,
    )


def test_landmarks_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_bytes(b"\xff\xfe\x00\x80" * 9)
    refused("cannot be read as csv text", read_landmarks, {"landmarks": str(tmp_path / "points.csv")}, SHAPES, AFFINES)
