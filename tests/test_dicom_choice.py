"""Several DICOM volumes in a folder: parted by what tells them apart, numbered, chosen, left out with a true note."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.fileset import FileSet

from ncf.commands.main import main
from ncf.commands.register import register
from ncf.core.errors import PairError
from ncf.core.files import sha256_of
from ncf.core.names import image_stem
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.headers import series_in
from ncf.io.dicom.series import only_series, read_series
from ncf.io.image_files import read_image
from ncf.pair.checks import CheckFilesd
from tests.dicom_files import write_dicom, write_enhanced
from tests.refusing import refused
from tests.test_reading import POINT_MM, SHAPE, affine_of, volume

Change = Callable[[Dataset, int], None]


def doubled(folder: Path, *, second: Change, first: Change = lambda data, k: None) -> Path:
    """A series with two planes at every place, the later brighter by 1000."""
    write_dicom(folder, volume(), affine_of("oblique"), changed=first)
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID

    def changed(data: Dataset, k: int) -> None:
        data.SeriesInstanceUID = uid
        data.PixelData = (np.frombuffer(data.PixelData, "<i2") + 1000).astype("<i2").tobytes()
        second(data, k)

    other = folder.parent / f"{folder.name}_other"
    write_dicom(other, volume(), affine_of("oblique"), changed=changed)
    for file in other.iterdir():
        file.rename(folder / f"b{file.name}")
    other.rmdir()
    return folder


def both_read(folder: Path | str) -> None:
    for number, offset in ((1, 0), (2, 1000)):
        found, at, _ = read_series(f"{folder}#{number}", "fixed")
        np.testing.assert_array_equal(found, volume() + offset)
        assert np.abs(at - affine_of("oblique")).max() < POINT_MM


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("TemporalPositionIdentifier", (1, 2)),
        ("EchoTime", ("2.3", "10.1")),
        ("DiffusionBValue", (0.0, 800.0)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("AcquisitionNumber", (1, 2)),
        ("AcquisitionTime", ("101500.00", "101730.00")),
    ],
)
def test_a_tag_tells_two_volumes_of_a_series_apart(tmp_path: Path, word: str, values: tuple[object, object]) -> None:
    first, second = (lambda data, k, v=v: setattr(data, word, v) for v in values)
    folder = doubled(tmp_path / "s", first=first, second=second)
    both_read(folder)
    assert [word in series.told for series in series_in(folder, "x")] == [True, True]
    refused(rf"holds 2 DICOM volumes: 1 CT .*9x12x10 {word} .*; 2 .*; choose one by .*#1", only_series, folder, "fixed")


def test_slices_with_times_of_their_own_are_parted_by_their_order(tmp_path: Path) -> None:
    def at(start: int) -> Change:
        return lambda data, k: setattr(data, "TriggerTime", str(start + k % 3))

    both_read(doubled(tmp_path / "s", first=at(10), second=at(40)))


def test_where_no_tag_tells_two_times_apart_is_refused(tmp_path: Path) -> None:
    folder = doubled(tmp_path / "s", second=lambda data, k: None)
    refused("up to 2 lie at one place .10 of 10 places., and no tag tells", only_series, folder, "fixed")
    frames = write_enhanced(tmp_path / "frames", volume(), affine_of("oblique"), times=2)
    refused("no tag tells them apart", only_series, frames, "fixed")


def test_two_tags_together_part_times_and_echoes(tmp_path: Path) -> None:
    def of(time: int, echo: str) -> Change:
        def changed(data: Dataset, k: int) -> None:
            data.TemporalPositionIdentifier, data.EchoTime, data.SeriesInstanceUID = time, echo, "1.2.3"
            data.PixelData = (np.frombuffer(data.PixelData, "<i2") + 100 * time + int(echo)).astype("<i2").tobytes()

        return changed

    (tmp_path / "s").mkdir()
    for time in (1, 2):
        for echo in ("5", "9"):
            write_dicom(tmp_path / "s" / f"{time}{echo}", volume(), affine_of("RAS"), changed=of(time, echo))
    assert len(series_in(tmp_path / "s", "x")) == 4
    found, _, _ = read_series(f"{tmp_path / 's'}#4", "fixed")
    np.testing.assert_array_equal(found, volume() + 209)


def test_series_in_subfolders_are_numbered_and_chosen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "study"
    root.mkdir()

    def named(data: Dataset, k: int) -> None:
        data.SeriesNumber, data.SeriesDescription, data.PatientName, data.PatientID = 2, "Chest", "Doe^Jane", "4711"

    def numbered(data: Dataset, k: int) -> None:
        data.SeriesNumber, data.Modality, data.SeriesInstanceUID = 1, "MR", "1.2.840.7"

    write_dicom(root / "ct", volume(), affine_of("RAS"), changed=named)
    write_dicom(root / "mr", volume() + 5, affine_of("LPS"), changed=numbered)
    (root / "notes.txt").write_text("no scan")
    for path, offset in ((root / "ct", 0), (f"{root}#2", 0), (f"{root}#1", 5), (f"{root}#1.2.840.7", 5)):
        np.testing.assert_array_equal(read_image("x", str(path)).numpy()[0], volume() + offset)
    refused("has no volume 3; it holds 2 DICOM volumes: 1 MR", only_series, f"{root}#3", "fixed")
    refused("has no volume abc", only_series, f"{root}#abc", "fixed")
    main(["files", str(root), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [(v["number"], v["modality"], v["size"], v["problem"]) for v in told["volumes"]] == [
        (1, "MR", [9, 12, 10], None),
        (2, "CT", [9, 12, 10], None),
    ]
    assert told["volumes"][1]["spacing_mm"] == pytest.approx([1.1, 2.3, 3.4]) and told["other_files"] == 1
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["files", str(tmp_path / "none")])
    assert ended.value.code == 1 and "no DICOM scan below" in capsys.readouterr().out
    main(["files", str(root)])
    printed = capsys.readouterr().out
    assert "Chest" in printed and "Doe" not in printed and "4711" not in printed
    checked = CheckFilesd()({"fixed": f"{root}#1", "moving": f"{root}#2"})
    assert checked["name"] == "study_1__study_2" and sha256_of(f"{root}#1") == sha256_of(root)


def test_a_hash_in_a_name_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a#1").mkdir()
    (tmp_path / "a").mkdir()
    assert scan_path(tmp_path / "a#1") == (tmp_path / "a#1", "")
    assert scan_path(tmp_path / "a#2") == (tmp_path / "a", "2")
    assert scan_path(tmp_path / "b#2") == (tmp_path / "b#2", "")
    assert image_stem("x/a#2") == "a_2" and image_stem("x/frames.dcm") == "frames"


def test_a_dicomdir_and_single_files(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s", volume(), affine_of("RAS"))
    disc = FileSet()
    for file in sorted((tmp_path / "s").iterdir()):
        data = pydicom.dcmread(file)
        data.PatientID, data.StudyDate, data.StudyTime, data.StudyID = "1", "20200101", "120000", "1"
        data.PatientName, data.AccessionNumber, data.SeriesNumber = "x", "", 1
        disc.add(FileDataset(str(file), data, preamble=b"\0" * 128, file_meta=data.file_meta))
    disc.write(tmp_path / "disc")
    disc._stage["t"].cleanup()  # pydicom leaves that to the garbage collector, with a warning
    for path in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        np.testing.assert_array_equal(read_image("x", str(path)).numpy()[0], volume())
    lost = next(file for file in sorted((tmp_path / "disc").rglob("*")) if file.is_file() and file.name != "DICOMDIR")
    lost.unlink()
    refused("names 1 of 10 files that are not there", only_series, tmp_path / "disc" / "DICOMDIR", "fixed")
    frames = Path(write_enhanced(tmp_path / "e", volume(), affine_of("RAS"))) / "frames.dcm"
    assert CheckFilesd()({"fixed": frames, "moving": tmp_path / "s"})["name"] == "frames__s"
    np.testing.assert_array_equal(read_image("x", str(frames)).numpy()[0], volume())
    one = next((tmp_path / "s").iterdir())
    refused("it is a single slice, and a volume needs two or more", only_series, one, "fixed")
    refused("single slice", CheckFilesd(), {"fixed": one, "moving": frames})


def test_copies_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(write_dicom(tmp_path / "s", volume(), affine_of("RAS")))
    files = sorted(folder.iterdir())
    shutil.copy(files[3], folder / "copy")
    again = pydicom.dcmread(files[5])
    again.SOPInstanceUID = "1.2.3.4.5"  # sent twice, under another name
    again.save_as(folder / "again")
    logging.getLogger("ncf.notes").propagate = True
    np.testing.assert_array_equal(read_series(folder, "fixed")[0], volume())
    assert "2 slices are there twice" in caplog.text
    again.PixelData = again.PixelData[:-2] + b"\5\0"
    again.save_as(folder / "again")
    refused("up to 2 lie at one place .1 of 10 places.", read_series, folder, "fixed")


def test_parallel_slices_that_are_no_stack_are_not_called_tilted(tmp_path: Path) -> None:
    def scattered(data: Dataset, k: int) -> None:
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x + (8 if k == 4 else 0), y, z]

    def drifting(data: Dataset, k: int) -> None:
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y, z + 0.3 * k * (k > 5)]

    folder = write_dicom(tmp_path / "s", volume(), affine_of("RAS"), changed=scattered)
    refused("parallel, but shifted sideways by up to 8 mm, each differently", only_series, folder, "fixed")
    folder = write_dicom(tmp_path / "d", volume(), affine_of("RAS"), changed=drifting)
    refused("slices must be evenly spaced", only_series, folder, "fixed")
    folder = write_dicom(tmp_path / "t", volume(), affine_of("RAS"), tilt_mm=0.5)
    refused("each by 0.5 mm from the one before .gantry tilt", only_series, folder, "fixed")


def test_what_a_file_does_not_say_is_named(tmp_path: Path) -> None:
    def sizeless(data: Dataset, k: int) -> None:
        data.ImagerPixelSpacing = data.PixelSpacing
        del data.PixelSpacing

    def old(data: Dataset, k: int) -> None:
        data.NumberOfFrames, data.PixelData = 2, data.PixelData * 2

    def palette(data: Dataset, k: int) -> None:
        data.PhotometricInterpretation = "PALETTE COLOR"

    for change, telling in (
        (sizeless, "tells no PixelSpacing.*10 files like this"),
        (old, "holds 2 frames without their places"),
        (palette, "holds colours .PALETTE COLOR."),
    ):
        folder = write_dicom(tmp_path / change.__name__, volume(), affine_of("RAS"), changed=change)
        refused(telling, only_series, folder, "fixed")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s", volume(), affine_of("RAS"))
    closed = tmp_path / "s" / "closed"
    closed.mkdir(mode=0)
    refused("cannot read .*closed .Permission denied.", only_series, tmp_path / "s", "fixed")
    closed.chmod(0o700)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    folder = Path(write_dicom(tmp_path / "s", volume(), affine_of("RAS")))
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.dcm")
    np.testing.assert_array_equal(read_series(folder, "fixed")[0], volume())


def test_values_with_overlays_in_their_high_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(-2048, 2048, SHAPE).astype(np.int16)

    def twelve(data: Dataset, k: int) -> None:
        data.BitsStored, data.HighBit = 12, 11
        own = np.frombuffer(data.PixelData, "<u2") & 0x0FFF
        data.PixelData = (own | (rng.integers(0, 16, own.shape) << 12)).astype("<u2").tobytes()

    folder = write_dicom(tmp_path / "s", stored, affine_of("RAS"), changed=twelve)
    np.testing.assert_array_equal(read_series(folder, "fixed")[0], stored)


def test_register_takes_the_series_of_each_scan() -> None:
    job = register("nowhere", "elsewhere", fixed_series="3", moving_series="1.2.3")
    given = dict(job.overrides)
    assert str(given["fixed"]).endswith("nowhere#3") and str(given["moving"]).endswith("elsewhere#1.2.3")
    with pytest.raises(SystemExit, match="--moving_series is the number or UID"):
        register("nowhere", moving_series="3")


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"")
    with pytest.raises(PairError, match="1 DICOM file cannot be read"):
        only_series(tmp_path, "fixed")


def test_texts_that_break_rules_are_neither_shown_nor_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """They are looked at when they are needed, which must be as quiet as before."""

    def odd(data: Dataset, k: int) -> None:
        with pydicom.config.disable_value_validation():
            data.Modality, data.Units, data.AcquisitionDate, data.AcquisitionTime = "PT", "secret name", "x y", "z"
            data.SeriesDescription, data.ImageType = "odd " * 40, ["secret name", "b"]

    with pydicom.config.disable_value_validation():
        folder = write_dicom(tmp_path / "s", volume(), affine_of("RAS"), changed=odd)
    found, _, _ = read_series(folder, "fixed")
    np.testing.assert_array_equal(found, volume())
    main(["files", folder])
    printed = "".join(capsys.readouterr())
    assert "PT" in printed and "Invalid value" not in printed and not recwarn.list
