"""RTSTRUCT and SEG as label maps, against plastimatch, dcmqi and matplotlib; names, overlaps and large numbers."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.labels import Labels, partners, sides_of
from ncf.evaluate.label_overlap import label_sets, overlap
from ncf.io.dicom.contours import inside_outline
from ncf.io.image_files import read_image
from ncf.io.label_files import empty_scan, read_label, shown_labels, table_of
from ncf.io.label_names import save_names
from ncf.io.label_partners import matched
from ncf.space.grids import Grid
from tests.dicom_files import write_dicom
from tests.label_objects import FRAME, complete, write_segments, write_structures

SHAPE = (24, 20, 8)
AXIAL = np.array([[-2.0, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 3, -7], [0, 0, 0, 1]])  # DICOM's own axes, L P S
REAL = Path(__file__).parents[2] / "shared" / "data" / "limb_ct_mr" / "dicom"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> str:
    stored = np.random.default_rng(0).integers(0, 100, SHAPE)
    return write_dicom(tmp_path_factory.mktemp("dicom") / "scan", stored, AXIAL, changed=complete)


def ring(centre: tuple[float, float], radii: tuple[float, float], k: float, *, corners: int = 17) -> np.ndarray:
    """An ellipse in voxels of slice k, as points (N, 3) in RAS mm."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False) + 0.1
    at = np.column_stack(
        [centre[0] + radii[0] * np.cos(turn), centre[1] + radii[1] * np.sin(turn), np.full(corners, k)]
    )
    return nib.affines.apply_affine(AXIAL, at)


def masks_of(label: MetaTensor) -> dict[str, np.ndarray]:
    table = table_of(label)
    return {name: table.mask(label.as_tensor()[0].numpy(), n) for n, name in table.names.items()}


def by_plastimatch(path: Path, scan: str | Path, folder: Path) -> dict[str, np.ndarray]:
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed (apt-get install plastimatch)")
    command = ["plastimatch", "convert", "--input", path, "--referenced-ct", scan, "--output-prefix", folder]
    subprocess.run([*map(str, command), "--prefix-format", "nii.gz", "--xor-contours"], check=True, capture_output=True)
    return {file.name.removesuffix(".nii.gz"): np.asarray(nib.load(file).dataobj) > 0 for file in folder.iterdir()}


def drawn() -> dict[str, list[tuple[str, np.ndarray]]]:
    """A structure with a hole, one on the centres of voxels, a keyhole, two that overlap."""
    closed = "CLOSED_PLANAR"
    square = np.array([[3, 4], [9, 4], [9, 11], [3, 11]], float)
    on_centres = [nib.affines.apply_affine(AXIAL, np.column_stack([square, np.full(4, k)])) for k in (1, 2)]
    outer, inner = ring((12, 10), (7, 6), 4), ring((12, 10), (3, 2.5), 4)[::-1]
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    return {
        "hole": [(closed, ring((12, 10), (r, r), k)) for k in (2, 3, 4) for r in (7.3, 3.1)],
        "on_centres": [(closed, points) for points in on_centres],
        "keyhole": [(closed, keyhole)],
        "inner": [(closed, ring((12, 10), (2.2, 2.6), k)) for k in range(8)],
    }


def test_contours_are_those_of_plastimatch(scan: str, tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", scan, drawn())
    found = masks_of(read_label("fixed_label", path, read_image("fixed", scan)))
    truth = by_plastimatch(path, scan, tmp_path / "masks")
    assert set(found) == set(truth)
    for name, mask in truth.items():
        assert mask.any()
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


@pytest.mark.data
@pytest.mark.skipif(not REAL.exists(), reason="no ../shared/data")
@pytest.mark.parametrize("kind", ["CT", "MR_T1", "PET"])
def test_real_contours_are_those_of_plastimatch(kind: str, tmp_path: Path) -> None:
    path, series = REAL / kind / "mask" / "RS.dcm", REAL / kind / "image"
    found = masks_of(read_label("fixed_label", path, read_image("fixed", str(series))))
    truth = by_plastimatch(path, series, tmp_path / "masks")
    assert list(found) == list(truth) == [f"GTV_Mass_{kind}"]
    np.testing.assert_array_equal(*(masks[f"GTV_Mass_{kind}"] for masks in (found, truth)))


def test_outlines_against_matplotlib() -> None:
    rng = np.random.default_rng(3)
    grid = np.indices((30, 25)).reshape(2, -1).T
    for _ in range(20):
        outline = rng.uniform(-4, 32, (rng.integers(3, 12), 2))
        truth = Outline(outline).contains_points(grid).reshape(30, 25)
        np.testing.assert_array_equal(inside_outline(outline, (30, 25)), truth)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_the_storage_of_the_scan_does_not_matter(
    scan: str, tmp_path: Path, axes: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    """Contours in sagittal and coronal slices of an array are the axial ones of another."""
    path = write_structures(tmp_path / "rs.dcm", scan, drawn())
    own = read_label("fixed_label", path, empty_scan(Grid(SHAPE, AXIAL)))
    orientation = np.array(list(zip(axes, flips, strict=True)), float)
    turned = nib.orientations.apply_orientation(own.numpy()[0], orientation)
    affine = AXIAL @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
    np.testing.assert_array_equal(
        read_label("fixed_label", path, empty_scan(Grid(turned.shape, affine))).numpy()[0], turned
    )


@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_a_ball_on_any_grid(scan: str, tmp_path: Path, turn: float) -> None:
    """Contours 3 mm apart fill a finer grid between them, also an oblique one: the volume of a ball."""
    heights = np.arange(-12, 12.1, 3)
    shapes = [(2 * np.pi * np.arange(60) / 60, np.sqrt(max(13.0**2 - z**2, 0)), z) for z in heights]
    contours = [np.column_stack([r * np.cos(a), r * np.sin(a), np.full(60, z)]) for a, r, z in shapes]
    path = write_structures(tmp_path / "rs.dcm", scan, {"ball": [("CLOSED_PLANAR", points) for points in contours]})
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine[:3, 3] = affine[:3, :3] @ (-20, -20, -20)
    found = read_label("fixed_label", path, empty_scan(Grid((41, 41, 41), affine)))
    cylinders = sum(np.pi * 3 * r**2 for _, r, _ in shapes)
    assert float((found > 0).sum()) == pytest.approx(cylinders, rel=0.02)


def test_what_is_left_out_is_told(scan: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    closed = ("CLOSED_PLANAR", ring((12, 10), (6, 6), 2))
    shapes = {
        "twice": [closed, closed],
        "point": [("POINT", ring((5, 5), (1, 1), 3)[:1])],
        "far": [("CLOSED_PLANAR", ring((120, 100), (6, 6), 2))],
        "crossing": [closed, ("CLOSED_PLANAR", ring((16, 10), (6, 6), 2))],
        "gap": [("CLOSED_PLANAR", ring((5, 5), (3, 3), k)) for k in (0, 1, 2, 6, 7)],
        "cancelled": [("CLOSEDPLANAR_XOR", closed[1])] * 2,
    }
    path = write_structures(tmp_path / "rs.dcm", scan, shapes)
    with caplog.at_level(logging.WARNING, "ncf.notes"):
        masks = masks_of(read_label("fixed_label", path, read_image("fixed", scan)))
    for words in (
        "of type POINT enclose nothing and are left out, of point",
        "there twice count once, of twice",
        "far, cancelled enclose no voxel",
        "contours of crossing cross each other in 1 planes",
        "gap has no contour over 12.0 mm",
        "structures overlap",
    ):
        assert words in caplog.text
    assert masks["twice"].any() and not masks["cancelled"].any()
    assert masks["gap"].any(axis=(0, 1)).tolist() == [True] * 3 + [False] * 3 + [True] * 2


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_come_back(scan: str, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("highdicom", reason="highdicom writes the SEG")
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[3:9, 4:11, 2:5], second[7 if kind != "LABELMAP" else 9 : 20, 2:15, 4:7] = True, True
    path = write_segments(tmp_path / "seg.dcm", scan, {"Left Lung": first, "Heart": second}, kind=kind)
    found = masks_of(read_label("fixed_label", path, read_image("fixed", scan)))
    np.testing.assert_array_equal(found["Left Lung"], first)
    np.testing.assert_array_equal(found["Heart"], second)
    own = read_label("moving_label", path)  # the frames' own grid: planes 2 to 6
    assert own.shape[1:] == (24, 20, 5)
    chosen = read_label("fixed_label", path, read_image("fixed", scan), wanted=["heart"])
    np.testing.assert_array_equal(chosen.numpy()[0] > 0, second)


def test_segments_are_those_of_dcmqi(scan: str, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom writes the SEG")
    if shutil.which("segimage2itkimage") is None:
        pytest.skip("dcmqi is not installed (pip install dcmqi)")
    mask = np.random.default_rng(5).random(SHAPE) > 0.6
    mask[:, :, 3] = False  # a frame that is missing
    path = write_segments(tmp_path / "seg.dcm", scan, {"Heart": mask})
    command = ["segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nii"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    truth = nib.load(next(tmp_path.glob("*.nii.gz")))
    found = read_label("fixed_label", path, empty_scan(Grid(truth.shape, truth.affine)))
    np.testing.assert_array_equal(found.numpy()[0] > 0, np.asarray(truth.dataobj) > 0)
    assert mask.sum() == (np.asarray(truth.dataobj) > 0).sum()


def test_another_frame_of_reference(scan: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = read_image("fixed", scan)
    other = write_structures(tmp_path / "a.dcm", scan, drawn(), frame=FRAME + ".2", series=FRAME + ".3")
    with pytest.raises(PairError, match="another frame of reference than the scan") as caught:
        read_label("fixed_label", other, image)
    assert "Secret" not in str(caught.value)
    elsewhere = write_structures(tmp_path / "b.dcm", scan, drawn(), series=FRAME + ".3")
    with caplog.at_level(logging.WARNING, "ncf.notes"):
        read_label("fixed_label", elsewhere, image)
    assert "drawn on another series" in caplog.text and "Secret" not in caplog.text


def test_contours_need_a_scan_and_known_names(scan: str, tmp_path: Path) -> None:
    path = write_structures(tmp_path / "rs.dcm", scan, drawn())
    with pytest.raises(PairError, match="have no grid of their own"):
        read_label("label", path)
    with pytest.raises(PairError, match="has no label liver; it has hole, on_centres, keyhole, inner"):
        read_label("fixed_label", path, empty_scan(Grid(SHAPE, AXIAL)), wanted=["liver"])


def test_partners_are_found_by_name(scan: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = empty_scan(Grid(SHAPE, AXIAL))
    shapes = [[("CLOSED_PLANAR", ring((6 + 4 * n, 10), (1.5, 6), 2))] for n in range(4)]
    fixed = write_structures(tmp_path / "f.dcm", scan, dict(zip(("Heart", "Lung_L", "Cord"), shapes, strict=False)))
    moving = dict(zip(("Trachea", "lung l", "HEART"), shapes, strict=False))
    path = write_structures(tmp_path / "m.dcm", scan, moving, numbers=(1, 7, 12))
    pair = {"fixed_label": read_label("f", fixed, image), "moving_label": read_label("m", path, image)}
    with caplog.at_level(logging.WARNING, "ncf.notes"):
        table = table_of(matched(pair)["moving_label"])
    assert table.names == {1: "HEART", 2: "lung l", 13: "Trachea"}
    assert "on the moving side: Cord" in caplog.text and "on the fixed side: Trachea" in caplog.text
    again = table_of(matched(pair, sides_of("Cord=Trachea"))["moving_label"])
    assert again.names[3] == "Cord"
    with pytest.raises(PairError, match=r"moving map are called alike \(Heart, heart_\)"):
        double = Labels({}, {4: "Heart", 5: "heart_"})
        partners(Labels({}, {1: "Heart"}), double, fixed_labels={1}, moving_labels={4, 5})


def test_dice_of_structures_that_overlap_is_whole(scan: str, tmp_path: Path) -> None:
    label = read_label("f", write_structures(tmp_path / "rs.dcm", scan, drawn()), empty_scan(Grid(SHAPE, AXIAL)))
    masks, tables = masks_of(label), (table_of(label), table_of(label))
    moved = torch.roll(label.as_tensor()[0], 1, 0)
    numbers = label_sets(label.as_tensor()[0], moved, tables).shared
    found = overlap(label.as_tensor()[0], moved, numbers, tables)["labels"]
    for number, name in table_of(label).names.items():
        own, other = masks[name], np.roll(masks[name], 1, 0)
        assert found[number] == pytest.approx(2 * (own & other).sum() / (own.sum() + other.sum()))
    shown = shown_labels(label.as_tensor()[0], table_of(label))
    assert set(np.unique(shown)) == {0, 1, 2, 3, 4} and (shown[masks["inner"]] == 4).all()


def test_large_labels_are_exact(tmp_path: Path) -> None:
    values = np.zeros(SHAPE, np.uint32)
    values[2:4], values[4:6], values[6:8] = 2**24 + 1, 2**24 + 2, 2**32 - 1
    path = tmp_path / "atlas.nii.gz"
    nib.save(nib.Nifti1Image(values, AXIAL), path)
    save_names(path, {2**24 + 1: "Field CA1", 2**32 - 1: "Last"})
    label = read_label("fixed_label", path)
    np.testing.assert_array_equal(shown_labels(label.as_tensor()[0], table_of(label)), values)
    assert table_of(label).names == {2**24 + 1: "Field CA1", 2**32 - 1: "Last"}
    one = read_label("fixed_label", path, wanted=["field_ca1", 2**24 + 2])
    assert np.unique(shown_labels(one.as_tensor()[0], table_of(one))).tolist() == [0, 2**24 + 1, 2**24 + 2]


@pytest.mark.parametrize("wrong", [lambda v: v + 0.5, lambda v: v * np.nan, lambda v: v - 3.0])
def test_what_is_no_label_is_refused(tmp_path: Path, wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    path = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(wrong(np.ones(SHAPE, np.float32)), AXIAL), path)
    with pytest.raises(PairError, match=r"whole numbers|NaN or infinite|labels are 0 and more"):
        read_label("fixed_label", path)
