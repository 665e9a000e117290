"""Masks: images of weights, and structures of RTSTRUCT, SEG and label maps, chosen by name."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ncf import register
from ncf.core.names import image_stem
from ncf.io.image_files import read_image
from ncf.io.image_objects import mask_of
from ncf.io.label_files import read_label, table_of
from ncf.io.label_names import save_names
from ncf.io.mask_files import read_mask
from ncf.io.nifti import save_image
from ncf.pair.checks import CheckFilesd
from ncf.pair.read import ReadPaird
from tests.dicom_files import write_dicom
from tests.label_objects import complete, write_segments, write_structures
from tests.refusing import refused
from tests.test_label_files import AXIAL, SHAPE, ring

CLOSED = "CLOSED_PLANAR"


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> str:
    stored = np.random.default_rng(0).integers(0, 100, SHAPE)
    return write_dicom(tmp_path_factory.mktemp("dicom") / "scan", stored, AXIAL, changed=complete)


@pytest.fixture(scope="module")
def contours(scan: str) -> Path:
    """Three structures; the heart and the lung overlap."""
    at = {"Heart": (9, 9), "Lung L": (13, 10), "Bone": (19, 16)}
    drawn = {name: [(CLOSED, ring(xy, (4, 3), k)) for k in (2, 3, 4)] for name, xy in at.items()}
    return write_structures(Path(scan).parent / "RS.dcm", scan, drawn)


def wanted(path: Path, scan: str, *names: str) -> np.ndarray:
    """The union of structures, each read alone."""
    image = read_image("fixed", scan)
    masks = [read_label("label", path, image, wanted=[name]).numpy()[0] > 0 for name in names]
    assert all(mask.any() for mask in masks)
    return np.logical_or.reduce(masks)


@pytest.mark.parametrize("names", [("Heart",), ("heart", "Lung_L"), ("Heart", "Lung L", "Bone")])
def test_a_mask_is_the_union_of_structures(
    scan: str, contours: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("ncf.notes").propagate = True
    choice = f"#{','.join(names)}" if len(names) < 3 else ""
    mask = read_mask("fixed_mask", f"{contours}{choice}", read_image("fixed", scan))
    expected = wanted(contours, scan, *names)
    np.testing.assert_array_equal(mask.numpy()[0], expected.astype(np.float32))
    (told,) = set(caplog.messages)  # that they overlap does not matter
    assert told.startswith("note: fixed_mask: RS.dcm: the mask is ") and f"{100 * expected.mean():.2g} %" in told
    assert ("RS.dcm#NAME,NAME chooses some" in told) == (not choice)
    assert [name in told for name in ("Heart", "Lung L", "Bone")] == [True, len(names) > 1, len(names) > 2]


def test_a_mask_may_be_a_segmentation_or_a_label_map(scan: str, tmp_path: Path) -> None:
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[3:9, 4:11, 2:5], second[12:15, 8:11, 1:3] = True, True
    path = write_segments(tmp_path / "seg.dcm", scan, {"Heart": first, "Lung": second}, kind="LABELMAP")
    image = read_image("fixed", scan)
    np.testing.assert_array_equal(read_mask("m", f"{path}#Lung", image).numpy()[0], second)
    np.testing.assert_array_equal(read_mask("m", f"{path}#1,2", image).numpy()[0], first | second)
    numbers = (first + 4 * second).astype(np.uint8)
    save_image(tmp_path / "brain.nii.gz", numbers, AXIAL)
    np.testing.assert_array_equal(read_mask("m", f"{tmp_path / 'brain.nii.gz'}#4", image).numpy()[0], second)
    save_names(tmp_path / "brain.nii.gz", {1: "Heart", 4: "Lung"})
    np.testing.assert_array_equal(read_mask("m", f"{tmp_path / 'brain.nii.gz'}#Heart", image).numpy()[0], first)
    weights = read_mask("m", str(tmp_path / "brain.nii.gz"), image)  # without a choice its numbers are weights
    np.testing.assert_array_equal(weights.numpy()[0], numbers)
    assert mask_of("m", f"{path}#Heart", image).sum() == first.sum()


def test_what_is_no_structure_is_refused(scan: str, contours: Path) -> None:
    image = read_image("fixed", scan)
    telling = "no structure Spleen, of the others it has Heart; correct names"
    refused(telling, read_mask, "fixed_mask", f"{contours}#Heart,Spleen", image)
    refused("has no label Spleen; it has Heart, Lung L, Bone", read_mask, "fixed_mask", f"{contours}#Spleen", image)
    refused("names with commas between them", read_mask, "fixed_mask", f"{contours}#Heart,,Bone", image)
    elsewhere = write_structures(
        contours.parent / "other.dcm", scan, {"Heart": [(CLOSED, ring((9, 9), (4, 3), 2))]}, frame="1.2.3", series="1.9"
    )
    refused("another frame of reference", read_mask, "fixed_mask", str(elsewhere), image)


def test_a_pair_takes_structures_as_masks(scan: str, contours: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "moving.nii.gz", read_image("x", scan).numpy()[0], AXIAL)
    named = {"fixed": scan, "moving": str(tmp_path / "moving.nii.gz")}
    masks = {"fixed_mask": f"{contours}#Heart,Bone", "moving_mask": f"{contours}#Bone"}
    checked = CheckFilesd()({**named, **masks, "fixed_label": f"{contours}#Heart"})
    assert checked["files"]["fixed_mask"] == masks["fixed_mask"]
    pair = ReadPaird()(checked)
    np.testing.assert_array_equal(pair["fixed_mask"].numpy()[0], wanted(contours, scan, "Heart", "Bone"))
    np.testing.assert_array_equal(pair["moving_mask"].numpy()[0], wanted(contours, scan, "Bone"))
    assert set(table_of(pair["fixed_label"]).names.values()) == {"Heart"}
    scans = [(read_image("x", scan).numpy()[0], AXIAL)] * 2
    refused("has no label Spleen", partial(register, *scans, fixed_mask=f"{contours}#Spleen"))


def test_results_are_named_after_the_file_and_the_choice() -> None:
    names = {
        "a/RS.dcm": "RS",
        "RS.DCM": "RS",
        "a/RS.dcm#Heart": "RS_Heart",
        "s/brain.nii.gz#3": "brain_3",
        "a#2": "a_2",
    }
    assert {path: image_stem(path) for path in names} == names
    assert image_stem("a#b") == "a#b"  # a folder of that name
