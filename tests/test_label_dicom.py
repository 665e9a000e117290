"""The label server over DICOM: series as folders, an RTSTRUCT and a SEG as labels, and what a viewer gets of them."""

from __future__ import annotations

import gzip
import io
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ncf.io.dicom.written.structures import outlines
from ncf.phantom.chest import LABELS, breathing_thorax
from tests.dicom_files import write_dicom
from tests.label_client import Answer, Client, Server, started, wait_for
from tests.label_objects import complete, write_segments, write_structures
from tests.test_label_app import bundle, command, python

__all__ = ["bundle", "python"]  # fixtures
pytestmark = pytest.mark.label
SHAPE = (24, 22, 26)
NAMES = {name.capitalize(): number for name, number in LABELS.items()}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anna's planning series with an RTSTRUCT, a day's with a SEG of the liver alone, and one that cannot be read."""
    folder, chest = tmp_path_factory.mktemp("study"), breathing_thorax(SHAPE, seed=1)
    final = folder / "labels" / "final"
    final.mkdir(parents=True)
    flat = chest.affine @ np.diag([-1, -1, 1, 1.0])  # L P S, as DICOM has it
    flat[:2, 3] = chest.affine[:2, 3]
    for scan, values in (("anna_plan", chest.moving), ("anna_day1", chest.fixed), ("anna_day2", chest.fixed)):
        skip = (9,) if scan == "anna_day2" else ()
        write_dicom(folder / scan, np.asarray(values).round().astype(np.int16), flat, changed=complete, skip=skip)
    drawn = {}
    for name, number in NAMES.items():
        rings = []
        for k in range(SHAPE[2]):
            for outline in outlines(np.asarray(chest.moving_label)[:, :, k] == number):
                points = np.column_stack([outline, np.full(len(outline), k)])
                rings.append(("CLOSED_PLANAR", nib.affines.apply_affine(flat, points)))
        drawn[name] = rings
    write_structures(final / "anna_plan.dcm", folder / "anna_plan", drawn)
    liver = np.asarray(chest.fixed_label) == LABELS["liver"]
    write_segments(final / "anna_day1.dcm", folder / "anna_day1", {"Liver": liver})
    return folder


@pytest.fixture(scope="module")
def running(python: str, study: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    here = tmp_path_factory.mktemp("here")
    with started(command(python, study), root=bundle, here=here) as server:
        yield server
        assert server.end(signal.SIGINT) == 0


@pytest.fixture
def server(running: Server) -> Client:
    return running.client


def image_of(answer: Answer) -> nib.Nifti1Image:
    assert answer.status == 200, answer.body
    return nib.Nifti1Image.from_bytes(gzip.decompress(answer.body))


def test_series_are_scans_and_structures_their_labels(server: Client, study: Path, running: Server) -> None:
    told = server.ask("GET", "/info/").json
    assert told["models"]["ncf"]["config"]["moving"][1:] == ["anna_day1", "anna_day2", "anna_plan"]
    assert set(NAMES) <= set(told["labels"])
    held = server.ask("GET", "/datastore/", output="all").json["objects"]
    assert {scan: list(one["labels"]) for scan, one in held.items()} == {
        "anna_day1": ["final"], "anna_day2": [], "anna_plan": ["final"],
    }  # fmt: skip
    assert server.ask("HEAD", "/datastore/image", image="anna_plan").status == 200
    assert server.ask("HEAD", "/datastore/image", image="carl").status == 404
    scan = image_of(server.ask("GET", "/datastore/image", image="anna_plan"))
    label = image_of(server.ask("GET", "/datastore/label", label="anna_plan", tag="final"))
    assert scan.shape == label.shape == SHAPE and np.allclose(scan.affine, label.affine)
    numbers = np.asarray(label.dataobj)
    assert set(np.unique(numbers)) - {0} == set(range(1, len(NAMES) + 1))
    wait_for(lambda: not running.passing, running.log)  # what was sent goes when the answer has left
    following = server.ask("POST", "/activelearning/random", body=b"{}").json
    assert following["id"] in held and "path" not in following


def test_carried_labels_come_back_with_the_names_of_the_structures(server: Client, study: Path) -> None:
    answer = server.infer("anna_day1", preset="tiny", seed=3)
    told = answer.json
    assert (answer.status, told["fixed"], told["moving"]) == (200, "anna_day1", "anna_plan")
    names = told["label_names"]
    liver = names["Liver"]
    assert liver == 1  # the number of the fixed scan's segment, which has the same name
    assert set(NAMES) <= set(names) and len(set(names.values())) == len(names)
    carried = nib.load(study / "registrations" / "anna_day1__anna_plan" / "warped_label.nii.gz")
    own = image_of(server.ask("GET", "/datastore/label", label="anna_day1", tag="final"))
    assert np.allclose(carried.affine, own.affine)
    place = np.argwhere(np.asarray(carried.dataobj) == liver).mean(axis=0)
    wanted = np.argwhere(np.asarray(own.dataobj) == 1).mean(axis=0)
    assert (
        np.linalg.norm(nib.affines.apply_affine(own.affine, place) - nib.affines.apply_affine(own.affine, wanted)) < 8
    )
    assert told["metrics"]["dice"]["after"]["labels"]
    reply = image_of(server.infer("anna_day1", "image", preset="tiny", seed=3))
    np.testing.assert_array_equal(np.asarray(reply.dataobj), np.asarray(carried.dataobj))


def test_what_is_not_done_with_dicom_is_told_in_a_sentence(server: Client, study: Path, tmp_path: Path) -> None:
    assert "slices must be evenly spaced" in server.infer("anna_day2", preset="tiny").sentence
    assert "slices must be evenly spaced" in server.ask("GET", "/datastore/image", image="anna_day2").sentence
    assert "remove it by hand" in server.ask("DELETE", "/datastore/image", id="anna_day1").sentence
    assert (study / "anna_day1").is_dir()
    sent = next((study / "anna_day1").iterdir()).read_bytes()
    assert "a scan is one of" in server.upload("/datastore/image", "file", sent, name="x.dcm", image="new").sentence
    packed = server.ask("GET", "/datastore/dataset")
    with zipfile.ZipFile(io.BytesIO(packed.body)) as archive:
        names = archive.namelist()
    assert "label/anna_plan.dcm" in names
    assert sum(name.startswith("image/anna_plan/") for name in names) == SHAPE[2]


def test_a_folder_that_comes_later_is_a_scan(server: Client, study: Path) -> None:
    shutil.copytree(study / "anna_plan", study / "ben_plan")
    (study / "empty").mkdir()
    wait_for(lambda: "ben_plan" in server.ask("GET", "/info/").json["models"]["ncf"]["config"]["moving"], study)
    assert "empty" not in server.ask("GET", "/datastore/", output="all").json["objects"]
    shutil.rmtree(study / "ben_plan")
    wait_for(lambda: "ben_plan" not in server.ask("GET", "/info/").json["models"]["ncf"]["config"]["moving"], study)


def test_a_label_that_is_submitted_counts_from_then_on(server: Client, study: Path, tmp_path: Path) -> None:
    mine = server.ask("GET", "/datastore/label", label="anna_plan", tag="final").body
    assert server.upload("/datastore/label", "label", mine, name="x.nii.gz", image="anna_plan").status == 200
    held = server.ask("GET", "/datastore/", output="all").json["objects"]["anna_plan"]["labels"]["final"]
    assert held["ext"] == ".nii.gz" and (study / "labels" / "final" / "anna_plan.dcm").exists()
    assert server.ask("GET", "/datastore/label", label="anna_plan", tag="final").body == mine
