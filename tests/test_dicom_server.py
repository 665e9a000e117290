"""Objects through a real archive and back: Orthanc (Debian) on a free port, with a folder of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from ncf.io.nifti import save_itk_field
from ncf.use.dicom import export_dicom
from tests.dicom_pair import AFFINE, SHAPE, write_pair

pytestmark = pytest.mark.slow
START_S = 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an archive that is empty, and ends with the test."""
    program = shutil.which("Orthanc")
    if program is None:
        pytest.skip("no Orthanc: apt-get install orthanc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "Name": "test", "HttpPort": port, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomServerEnabled": False, "StorageDirectory": str(tmp_path / "db"), "IndexDirectory": str(tmp_path / "db"),
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(options), encoding="utf-8")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([program, str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(10 * START_S):
            try:
                ask(f"{address}/system")
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=START_S)


def ask(url: str, content: bytes | None = None) -> bytes:
    """What the archive answers."""
    with urllib.request.urlopen(urllib.request.Request(url, data=content), timeout=START_S) as answer:
        return answer.read()


def told(url: str, content: bytes | None = None) -> Any:
    return json.loads(ask(url, content))


def test_an_archive_takes_the_objects_and_gives_them_back(tmp_path: Path, server: str) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    field = np.full((3, *SHAPE), 0.3, np.float32)
    save_itk_field(tmp_path / "f.nii.gz", field, AFFINE)
    made = {}
    for kind in ("dicom", "dicom-reg"):
        (path,) = export_dicom(tmp_path / "f.nii.gz", tmp_path / "o", kind=kind, reference=fixed, moving=moving)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            made[pydicom.dcmread(file).SOPInstanceUID] = file
    for file in (*made.values(), *Path(fixed).iterdir()):
        assert told(f"{server}/instances", file.read_bytes())["Status"] == "Success"
    assert len(told(f"{server}/patients")) == len(told(f"{server}/studies")) == 1  # with the fixed scan's own
    assert len(told(f"{server}/series")) == 3
    back = {}
    for instance in told(f"{server}/instances"):
        data = pydicom.dcmread(BytesIO(ask(f"{server}/instances/{instance}/file")))
        back[data.SOPInstanceUID] = data
    for uid, file in made.items():
        sent = pydicom.dcmread(file)
        if "PixelData" in sent:
            assert back[uid].PixelData == sent.PixelData
        else:
            assert back[uid] == sent


def test_the_new_series_is_found_by_a_query_and_comes_back_with_the_same_pixels(tmp_path: Path, server: str) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    save_itk_field(tmp_path / "f.nii.gz", np.full((3, *SHAPE), 0.3, np.float32), AFFINE)
    (folder,) = export_dicom(tmp_path / "f.nii.gz", tmp_path / "o", kind="dicom", reference=fixed, moving=moving)
    for file in (*folder.iterdir(), *Path(fixed).iterdir()):
        ask(f"{server}/instances", file.read_bytes())
    sent = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file in folder.iterdir()}
    first = next(iter(sent.values()))

    def find(level: str, **query: str) -> Any:
        """What C-FIND would return: the resources of a level that have these values."""
        wanted = {"Level": level, "Query": query, "Expand": True}
        return told(f"{server}/tools/find", json.dumps(wanted).encode())

    (study,) = find("Study", PatientID=str(first.PatientID), StudyInstanceUID=str(first.StudyInstanceUID))
    assert len(study["Series"]) == 2
    (series,) = find("Series", StudyInstanceUID=str(first.StudyInstanceUID), SeriesDescription="Warped*")
    assert series["MainDicomTags"]["SeriesInstanceUID"] == first.SeriesInstanceUID
    assert series["MainDicomTags"]["SeriesNumber"] == "9001" and len(series["Instances"]) == SHAPE[2]
    assert not find("Series", SeriesDescription="Warped*", PatientID="another")
    for instance in series["Instances"]:
        back = pydicom.dcmread(BytesIO(ask(f"{server}/instances/{instance}/file")))
        assert back.PixelData == sent.pop(back.SOPInstanceUID).PixelData
    assert not sent
