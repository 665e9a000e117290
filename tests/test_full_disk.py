"""A full disk and one that may not be written: one sentence, nothing half, and what was there before stays."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ncf.commands.main import main
from ncf.core.errors import PairError
from ncf.core.files import write_together
from ncf.core.labels import Labels
from ncf.io.dicom.written.between import between
from ncf.io.dicom.written.segments import save_segments
from ncf.io.dicom.written.structures import save_structures, structures_of
from ncf.io.nifti import save_image, save_itk_field
from tests.conftest import LEVELS, NO_SEARCH
from tests.dicom_pair import AFFINE, MOVING_AFFINE, MOVING_SHAPE, SHAPE, write_pair

Disk = Callable[[str], Path]
FULL = "No space left on device; free some space or choose an output folder on another disk"
CLOSED = "Read-only file system; choose an output folder that you may write to"


def test_files_that_belong_together_come_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old", encoding="utf-8")
    (tmp_path / "other").write_text("stays", encoding="utf-8")

    def write(folder: Path, *, whole: bool) -> None:
        (folder / "a").write_text("new", encoding="utf-8")
        if not whole:
            raise PairError(f"cannot write {folder / 'b'}")
        (folder / "b").write_text("new", encoding="utf-8")

    with pytest.raises(PairError, match=f"^cannot write {tmp_path / 'b'}$"):
        write_together(tmp_path, lambda folder: write(folder, whole=False))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "other": "stays"}
    write_together(tmp_path, lambda folder: write(folder, whole=True))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "new", "b": "new", "other": "stays"}


def test_names_of_an_earlier_label_map_do_not_stay(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:9, 4:9, 3:6] = 2
    save_itk_field(tmp_path / "field.nii.gz", np.zeros((3, *SHAPE), np.float32), AFFINE)
    (tmp_path / "in").mkdir()
    save_image(tmp_path / "in" / "map.nii.gz", labels, AFFINE)
    (tmp_path / "in" / "map.tsv").write_text("index\tname\n2\tHeart\n", encoding="utf-8")
    command = ["apply", str(tmp_path / "field.nii.gz"), str(tmp_path / "in" / "map.nii.gz"), "--to=label"]
    main([*command, f"--output_dir={tmp_path / 'out'}"])
    assert "Heart" in (tmp_path / "out" / "map.tsv").read_text(encoding="utf-8")
    (tmp_path / "in" / "map.tsv").unlink()
    main([*command, f"--output_dir={tmp_path / 'out'}"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["map.nii.gz"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts a small disk; its options are those of mount."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")

    def mounted(options: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
        return place

    yield mounted
    subprocess.run(["umount", place], check=True)


def fill(place: Path, *, left: int) -> None:
    """Leave some bytes on a disk."""
    free = os.statvfs(place)
    with (place / "filler").open("wb") as file:
        file.write(b"\0" * max(free.f_bavail * free.f_frsize - left, 0))


def refusal(*arguments: str) -> str:
    """The sentence by which a command ends."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code, ended.value.code
    return ended.value.code


def jobs(tmp_path: Path) -> list[list[str]]:
    """Commands that write each kind of file, without their folder."""
    fixed, moving, _ = write_pair(tmp_path)
    codes = np.zeros(MOVING_SHAPE, np.uint8)
    codes[4:12, 3:9, 3:9], codes[13:18, 6:12, 2:12] = 3, 4
    found = structures_of(codes, Labels(names={3: "Heart", 4: "Lung"}))
    save_structures(tmp_path / "RS.dcm", found, between(moving, fixed, anonymous=False))
    save_segments(tmp_path / "SEG.dcm", found, between(moving, fixed, anonymous=False))
    rough = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    save_itk_field(tmp_path / "field.nii.gz", rough, AFFINE)
    field, scans = str(tmp_path / "field.nii.gz"), [f"--reference={fixed}", f"--moving={moving}"]
    made = [["export", field, f"--format={kind}", *scans] for kind in ("dicom", "dicom-reg")]
    made += [["export", field, f"--format={kind}"] for kind in ("nii.gz", "nrrd", "mha", "h5", "tfm", "jacobian")]
    for name in ("RS.dcm", "SEG.dcm"):
        for kind in ("false", "true", "seg-labelmap"):
            made.append(["apply", field, str(tmp_path / name), "--to=label", f"--dicom={kind}", *scans])
    made.append(["apply", field, moving, "--to=image", "--dicom=true", scans[0]])
    return [*made, ["apply", field, moving, "--to=image", scans[0]]]


@pytest.mark.slow
def test_nothing_half_is_left_on_a_full_disk(tmp_path: Path, disk: Disk) -> None:
    place = disk("size=400k")
    for job in jobs(tmp_path):
        main([*job, f"--output_dir={place / 'out'}"])
        before = {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}
        fill(place, left=0)
        assert FULL in refusal(*job, f"--output_dir={place / 'out'}")
        (place / "filler").unlink()
        fill(place, left=4096)  # some of it can be written
        assert "the disk may be full" in (told := refusal(*job, f"--output_dir={place / 'out'}")) or FULL in told
        after = {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}
        assert after == before, job
        (place / "filler").unlink()
        assert not [path for path in place.rglob(".*")]
        subprocess.run(["rm", "-r", place / "out"], check=True)


@pytest.mark.slow
def test_a_disk_that_may_not_be_written_is_told_before_anything_else(tmp_path: Path, disk: Disk) -> None:
    every = jobs(tmp_path)
    place = disk("ro")
    for job in every:
        assert CLOSED in refusal(*job, f"--output_dir={place / 'out'}")
    assert not list(place.iterdir())


@pytest.mark.slow
def test_an_earlier_result_stays_where_the_next_finds_no_space(tmp_path: Path, disk: Disk) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    codes = np.zeros(MOVING_SHAPE, np.uint8)
    codes[4:12, 3:9, 3:9] = 3
    save_image(tmp_path / "label.nii.gz", codes, MOVING_AFFINE)
    overlay = {"fit::levels": LEVELS, **NO_SEARCH, "preparing::transforms::0::min_size": 4}
    overlay["measuring::transforms::2"] = {"_target_": "Identity"}
    (tmp_path / "tiny.json").write_text(json.dumps(overlay), encoding="utf-8")
    place = disk("size=4m")
    command = ["register", fixed, moving, f"--moving_label={tmp_path / 'label.nii.gz'}", "--dicom=true", "--name=p"]
    command += [f"--preset={tmp_path / 'tiny.json'}", f"--output_dir={place}", "--progress=false", "--report=false"]
    command += ["--transform=rigid"]
    main(command)
    before = {path: path.read_bytes() for path in (place / "p").rglob("*") if path.is_file()}
    assert place / "p" / "dicom" / "seg.dcm" in before
    for left in (0, 4096, 30_000, 60_000):
        fill(place, left=left)
        assert FULL in refusal(*command, "--seed=1")
        (place / "filler").unlink()
        assert {path: path.read_bytes() for path in (place / "p").rglob("*") if path.is_file()} == before
    disk("size=4m,ro")
    assert CLOSED in refusal(*command)
    disk("size=4m,rw")
