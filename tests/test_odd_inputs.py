"""Inputs that say two things, nothing, or something that cannot be: read by a rule and told, or refused in one line."""

from __future__ import annotations

import gzip
import json
import logging
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ncf.core.paths import expanded, file_there, there
from ncf.io.image_files import read_image
from ncf.io.itk_fields import load_vector_image
from ncf.io.landmarks import read_points
from ncf.io.pair_lists import read_pairs
from ncf.io.points.table import read_points_file
from tests.refusing import refused

AFFINE = np.array([[-4.0, 0, 0, 40], [0, -4, 0, 36], [0, 0, 4, -32], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)
VALUES = np.arange(np.prod(SHAPE), dtype="i2").reshape(SHAPE)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
CODES = {"qform": 252, "sform": 254}  # places in a header of NIfTI-1
PIXDIM, OFFSET, UNITS = 80, 108, 123


def header_changed(path: Path, changes: Mapping[int, bytes], sform: np.ndarray = AFFINE) -> str:
    """A NIfTI whose sform and qform have code 1, with other bytes in its header."""
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(sform, 1)
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    for place, new in changes.items():
        content[place : place + len(new)] = new
    path.write_bytes(bytes(content))
    return str(path)


def code(number: int) -> bytes:
    return struct.pack("<h", number)


def by_itk(path: str) -> np.ndarray:
    """The affine in RAS mm as SimpleITK has it."""
    image = sitk.ReadImage(path)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


@pytest.mark.parametrize(("which", "told"), [(1, False), (4, True)])
def test_of_two_geometries_the_sform_counts_and_both_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, which: int, told: bool
) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 20
    path = header_changed(tmp_path / "x.nii", {CODES["sform"]: code(which)}, moved)
    with caplog.at_level(logging.INFO, "ncf.notes"):
        found = read_image("moving", path).affine.numpy()
    np.testing.assert_allclose(found, moved)
    assert f"sform (code {which}) and qform (code 1) place voxels up to 20 mm apart; the sform counts" in caplog.text
    assert ("SimpleITK and 3D Slicer take the qform" in caplog.text) is told
    np.testing.assert_allclose(by_itk(path), AFFINE if told else moved, atol=1e-4)


def test_without_a_geometry_a_scan_lies_where_itk_puts_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    none = {place: code(0) for place in CODES.values()}
    with caplog.at_level(logging.INFO, "ncf.notes"):
        for n, sizes in enumerate([(4, 4, 4), (2, 3, 5)]):
            path = header_changed(tmp_path / f"{n}.nii", {**none, PIXDIM: struct.pack("<3f", *sizes)})
            np.testing.assert_allclose(read_image("fixed", path).affine.numpy(), by_itk(path), atol=1e-5)
    assert caplog.text.count("sform and qform codes are 0") == 2


def test_a_header_of_one_mind_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ncf.notes"):
        for unit in (0, 1, 2, 3):
            path = header_changed(tmp_path / f"{unit}.nii", {UNITS: bytes([unit])})
            np.testing.assert_allclose(read_image("fixed", path).affine.numpy(), by_itk(path), rtol=1e-5)
    assert not caplog.text


def test_a_shear_and_sizes_that_contradict_the_sform_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = 1.5
    alone = {CODES["qform"]: code(0)}
    with caplog.at_level(logging.INFO, "ncf.notes"):
        sizes = np.linalg.norm(sheared[:3, :3], axis=0)
        lone = {**alone, PIXDIM: struct.pack("<3f", *sizes)}
        image = read_image("x", header_changed(tmp_path / "shear.nii", lone, sheared))
        np.testing.assert_allclose(image.affine.numpy(), sheared)
        assert "not at right angles" in caplog.text
        ones = {**alone, PIXDIM: struct.pack("<3f", 1, 1, 1)}
        image = read_image("x", header_changed(tmp_path / "sizes.nii", ones))
        np.testing.assert_allclose(image.affine.numpy(), AFFINE)
    assert "voxels are 4 x 4 x 4 by the sform and 1 x 1 x 1 by pixdim" in caplog.text


@pytest.mark.parametrize("offset", [0.0, 100.0, float("nan")])
def test_voxels_that_begin_inside_the_header_are_refused(tmp_path: Path, offset: float) -> None:
    path = header_changed(tmp_path / "x.nii", {OFFSET: struct.pack("<f", offset)})
    refused("cannot read .*vox_offset is (0|100|nan), voxels begin at 352 or later", read_image, "fixed", path)


def test_a_qform_that_counts_and_is_none_is_refused(tmp_path: Path) -> None:
    for change in ({256: struct.pack("<3f", 2, 2, 2)}, {PIXDIM: struct.pack("<f", -4)}):
        path = header_changed(tmp_path / "x.nii", {CODES["sform"]: code(0), **change})
        refused("cannot read .*(its qform is no rotation|w2 should be positive)", read_image, "fixed", path)


def test_compression_is_seen_in_the_file_and_not_in_its_name(tmp_path: Path) -> None:
    plain = Path(header_changed(tmp_path / "x.nii", {})).read_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    for name in ("packed.nii", "plain.nii.gz"):
        image = read_image("fixed", str(tmp_path / name))
        np.testing.assert_array_equal(image.numpy()[0], VALUES)
        np.testing.assert_allclose(image.affine.numpy(), AFFINE)


def nrrd(path: Path, *fields: str) -> str:
    head = ["NRRD0005", "type: short", "dimension: 3", "sizes: 5 6 7", "endian: little", "encoding: raw", *fields]
    path.write_bytes("\n".join([*head, "", ""]).encode() + VALUES.tobytes("F"))
    return str(path)


DIRECTIONS = ("space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (5,6,7)")


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("cm", 10.0), ("m", 1000.0), ("um", 0.001)])
def test_the_unit_of_a_nrrd_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: str, mm: float) -> None:
    units = f'space units: "{unit}" "{unit}" "{unit}"'
    with caplog.at_level(logging.INFO, "ncf.notes"):
        path = nrrd(tmp_path / "x.nrrd", "space: left-posterior-superior", *DIRECTIONS, units)
        found = read_image("fixed", path).affine.numpy()
    np.testing.assert_allclose(np.abs(found[:3, :3]), np.diag([1, 2, 3]) * mm)
    np.testing.assert_allclose(found[:3, 3], np.array([-5, -6, 7]) * mm)
    assert ("is converted" in caplog.text) == (mm != 1)


def test_spaces_of_a_nrrd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ncf.notes"):
        for n, space in enumerate(("space: RAS", "space: LAS", "space: left-posterior-superior")):
            path = nrrd(tmp_path / f"{n}.nrrd", space, *DIRECTIONS)
            np.testing.assert_allclose(read_image("fixed", path).affine.numpy(), by_itk(path), atol=1e-5)
        assert not caplog.text
        for space in ("space dimension: 3", "space: scanner-xyz"):
            path = nrrd(tmp_path / "y.nrrd", space, *DIRECTIONS)
            np.testing.assert_allclose(read_image("fixed", path).affine.numpy(), by_itk(path), atol=1e-5)
    assert caplog.text.count("its axes are taken as L P S") == 2
    refused("left-handed", read_image, "fixed", nrrd(tmp_path / "z.nrrd", "space: 3D-left-handed", *DIRECTIONS))
    mixed = nrrd(tmp_path / "m.nrrd", "space: RAS", *DIRECTIONS, 'space units: "mm" "cm" "mm"')
    refused("different units", read_image, "fixed", mixed)
    furlongs = nrrd(tmp_path / "f.nrrd", "space: RAS", *DIRECTIONS, 'space units: "inch" "inch" "inch"')
    refused("unit of length is 'inch'", read_image, "fixed", furlongs)
    vectors = nrrd(tmp_path / "v.nrrd", "space: RAS", *DIRECTIONS, 'space units: "cm" "cm" "cm"')
    refused("that of its vectors is not known", load_vector_image, Path(vectors))


META = "ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementSpacing = 1 2 3\nElementType = MET_SHORT\n"


def meta(path: Path, *lines: str, data: str = "LOCAL") -> str:
    head = META + "".join(f"{line}\n" for line in lines) + f"ElementDataFile = {data}\n"
    path.write_bytes(head.encode() + (VALUES.tobytes("F") if data == "LOCAL" else b""))
    return str(path)


def test_metaimages_that_itk_cannot_follow_are_refused_before_it_opens_them(tmp_path: Path) -> None:
    (tmp_path / "s1.raw").write_bytes(b"0" * 60)
    for data in ("s%d.raw 1 7 0", "s%d.raw 7 1 1", "s%d.raw 1 7 -1", "s%s.raw 1 7 1", "s%n.raw 1 7 1", "s%d%d.raw 1 7"):
        refused("its files of data are", read_image, "fixed", meta(tmp_path / "x.mhd", data=data))
    refused(r"cannot read .*s2\.raw: No such file", read_image, "fixed", meta(tmp_path / "x.mhd", data="s%d.raw 1 7 1"))
    refused("is a device", read_image, "fixed", meta(tmp_path / "x.mhd", data="/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    refused("is a pipe", read_image, "fixed", meta(tmp_path / "x.mhd", data="pipe"))
    slope = meta(tmp_path / "slope.mha", "ElementToIntensityFunctionSlope = 2")
    refused("store the real values", read_image, "fixed", slope)
    large = Path(meta(tmp_path / "large.mha"))
    large.write_bytes(large.read_bytes().replace(b"5 6 7", b"99999 99999 99999"))
    refused("its header asks for", read_image, "fixed", str(large))


def test_the_unit_of_a_metaimage_counts(tmp_path: Path) -> None:
    found = read_image("fixed", meta(tmp_path / "x.mha", "Offset = 5 6 7", "DistanceUnits = cm")).affine.numpy()
    np.testing.assert_allclose(found @ [1, 1, 1, 1], [-60, -80, 100, 1])


# --- points ----------------------------------------------------------------------------------------------------------

TABLES = {
    "numeric labels": ("label,r,a,s\n7,1,2,3\n8,4,5,6\n", "ras"),
    "label first": ("label,x,y,z\n7,1,2,3\n8,4,5,6\n", "lps"),
    "units": ("ID, X [mm], Y [mm], Z [mm]\n7,1,2,3\n8,4,5,6\n", "lps"),
    "capitals, other order": ("S;note;R;A\n3;a;1;2\n6;b;4;5\n", "ras"),
    "tabs": ("name\tx_mm\ty_mm\tz_mm\nF-1\t1\t2\t3\nF-2\t4\t5\t6\n", "ras"),
    "no header, text first": ("F-1,1,2,3\nF-2,4,5,6\n", "ras"),
    "byte order mark": ("\ufeffx,y,z\n1,2,3\n4,5,6\n", "ras"),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_points_are_those_that_are_named(tmp_path: Path, name: str) -> None:
    text, space = TABLES[name]
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    file = read_points_file(tmp_path / "p.csv", space)
    assert file.points.tolist() == [[1, 2, 3], [4, 5, 6]]
    file.save(tmp_path / "out.csv", file.points + 0.5, np.array([True, True]))
    if name != "no header, text first":  # the flag is a fourth column of numbers there, which no name tells
        again = read_points_file(tmp_path / "out.csv", space)
        assert again.points.tolist() == [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]


@pytest.mark.parametrize(
    ("text", "space", "telling"),
    [
        ("label,r,a,s\n7,1,2,3\n", "lps", "its columns r, a, s are not in lps; give the space ras"),
        ("n,i,j,k\n7,1,2,3\n", "ras", "give the space voxel"),
        ("label,u,v,w\n7,1,2,3\n", "ras", "4 columns of numbers; name those of the points"),
        ("7,1,2,3\n8,4,5,6\n", "ras", "4 columns of numbers"),
        ("x [cm],y [cm],z [cm]\n1,2,3\n", "ras", "is not in mm"),
        ("x;y;z\n1,5;2,5;3,5\n", "ras", "decimal comma"),
        ('x,y,z\n"1,5","2,5","3,5"\n', "ras", "decimal comma"),
    ],
)
def test_points_that_could_be_other_columns_are_refused(tmp_path: Path, text: str, space: str, telling: str) -> None:
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    refused(telling, read_points_file, tmp_path / "p.csv", space)


def test_landmarks_with_other_separators_and_with_the_sides_swapped(tmp_path: Path) -> None:
    path, shapes = tmp_path / "l.csv", {"fixed": SHAPE, "moving": SHAPE}
    for separator in ",;\t":
        path.write_text(separator.join("123123"), encoding="utf-8")
        assert read_points(str(path), shapes).tolist() == [[1, 2, 3, 1, 2, 3]]
    path.write_text("moving_i,moving_j,moving_k,fixed_i,fixed_j,fixed_k\n1,2,3,1,2,3\n", encoding="utf-8")
    refused("column 1 is called 'moving_i', expected fixed there", read_points, str(path), shapes)
    path.write_text("x [mm],y [mm],z [mm],x [mm],y [mm],z [mm]\n1,2,3,1,2,3\n", encoding="utf-8")
    refused("is in mm, expected voxel indices", read_points, str(path), shapes)


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1.0), ("um", 1e-3), ("cm", 10.0), ("m", 1e3), (["um", "UCUM", "micrometer"], 1e-3)]
)
def test_markups_in_other_units_go_in_mm_and_come_back_in_theirs(tmp_path: Path, unit: object, mm: float) -> None:
    points = [{"id": "1", "position": [1.0 / mm, 2.0 / mm, 3.0 / mm], "positionStatus": "defined"}]
    content = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": unit}]}
    content["markups"][0]["controlPoints"] = points  # type: ignore[assignment]
    (tmp_path / "p.mrk.json").write_text(json.dumps(content), encoding="utf-8")
    file = read_points_file(tmp_path / "p.mrk.json", None)
    np.testing.assert_allclose(file.points, [[1, 2, 3]])
    file.save(tmp_path / "o.mrk.json", file.points + 5, np.array([True]))
    (markup,) = json.loads((tmp_path / "o.mrk.json").read_text())["markups"]
    np.testing.assert_allclose(markup["controlPoints"][0]["position"], np.array([6, 7, 8]) / mm, rtol=1e-6)
    assert markup["coordinateUnits"] == unit


def test_markups_of_no_known_unit_or_with_two_numbers_a_point(tmp_path: Path) -> None:
    for position, unit, telling in (([1, 2, 3], "inch", "coordinateUnits are 'inch'"), ([1, 2], "mm", "has 2 numbers")):
        markup = {"coordinateUnits": unit, "controlPoints": [{"position": position}] * 3}
        (tmp_path / "p.mrk.json").write_text(json.dumps({"markups": [markup]}), encoding="utf-8")
        refused(telling, read_points_file, tmp_path / "p.mrk.json", None)


# --- lists and paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "which", "telling"),
    [
        ('{"registration_val": 7}', None, "'registration_val' is 7, expected a list"),
        ('{"training": [{"a": 1}], "tensorImageShape": 1}', "all_pairs", 'entry 1 of "training": expected a path'),
        ('{"training": null, "tensorImageShape": 1}', "all_pairs", "'training' is None, expected a list"),
        ('{"training": ["a", 7], "tensorImageShape": 1}', "all_pairs", 'entry 2 of "training"'),
        ('{"registration_val": [[1]]}', None, "row 1: expected"),
        ('{"registration_val": [{"fixed": NaN, "moving": "a"}]}', None, "row 1: expected"),
        ("[" * 100_000, None, "nested too deep"),
        ('{"pairs": [], "pairs": []}', None, "the entry 'pairs' is there twice"),
    ],
)
def test_an_odd_dataset_json_is_one_line(tmp_path: Path, text: str, which: str | None, telling: str) -> None:
    (tmp_path / "l.json").write_text(text, encoding="utf-8")
    refused(telling, lambda: read_pairs(tmp_path / "l.json", which=which))


def test_odd_rows_of_a_list(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz", "._a.nii.gz"):
        (tmp_path / name).touch()
    for text, telling in (
        ("fixed,moving,fixed\na.nii.gz,b.nii.gz,b.nii.gz\n", "the column 'fixed' twice"),
        (f"fixed,moving\na.nii.gz,{'b' * 300}\n", "row 1: moving.*File name too long"),
        ("fixed,moving\na.nii.gz,._a.nii.gz\n", "row 1: .*what macOS wrote"),
    ):
        (tmp_path / "l.csv").write_text(text, encoding="utf-8")
        refused(telling, read_pairs, tmp_path / "l.csv")


def test_paths_that_are_no_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused("x: .*is a pipe", there, tmp_path / "pipe", "x")
    refused("is a device", there, "/dev/null")
    refused("is a folder, expected a file", file_there, tmp_path)
    refused(r"cannot open a{40}\.\.\. \(File name too long\)", there, "a" * 300, "x")
    refused("null byte", there, "a\0b")
    refused(r"a\\nb", there, tmp_path / "a\nb")
    with caplog.at_level(logging.INFO, "ncf.notes"):
        assert expanded("~no_such_user.nii.gz") == Path("~no_such_user.nii.gz")
    assert "is taken as the name of a file" in caplog.text
    assert expanded("~") == Path.home()
