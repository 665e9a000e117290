"""Every kind of file is written whole or not at all, and the same bytes each time; hashes and JSON."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ncf.core import files
from ncf.core.files import save_json
from ncf.io.checkpoint import save_checkpoint
from ncf.io.nifti import save_image, save_itk_field
from tests.refusing import refused

WAVES = np.sin(np.indices((20, 24, 28)).sum(axis=0) / 4 + np.arange(3).reshape(3, 1, 1, 1)).astype(np.float32)
WRITERS: dict[str, Callable[[Path], object]] = {
    "image.nii.gz": lambda p: save_image(p, WAVES[0], np.eye(4)),
    "labels.nii.gz": lambda p: save_image(
        p, np.random.default_rng(0).integers(99, size=WAVES.shape[1:], dtype="i2"), np.eye(4)
    ),
    "field.nii.gz": lambda p: save_itk_field(p, WAVES, np.eye(4)),
    "run.json": lambda p: save_json(p, {"numbers": list(range(3000))}),
    "network.pt": lambda p: save_checkpoint(p, {"numbers": torch.arange(4096.0), "kind": ["ncf", "ncf"]}),
}


def test_the_same_content_gives_the_same_bytes_at_any_time_and_under_any_name(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
    time.sleep(1.1)  # gzip and zip headers count seconds
    for name, write in WRITERS.items():
        write(tmp_path / f"another {name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"another {name}").read_bytes(), name
    gzip.decompress((tmp_path / "field.nii.gz").read_bytes())  # and it is gzip to others, checksum included


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))  # the kernel refuses more, as a disk without a free block
    try:
        refused(f"{name}: .*free some space", WRITERS[name], tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "old"


def test_half_a_file_is_never_left(tmp_path: Path) -> None:
    def write(error: BaseException, temporary: Path) -> None:
        assert temporary.parent == tmp_path and temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"half")
        raise error

    path, permission = tmp_path / "field.nii.gz", "choose an output folder that you may write to"
    for number, advice in ((errno.ENOSPC, "free some space"), (errno.EROFS, permission), (errno.EACCES, permission)):
        error = OSError(number, os.strerror(number))
        refused(f"{error.strerror}; {advice}", files.write_whole, path, partial(write, error))
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, partial(write, KeyboardInterrupt()))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_claimed_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert files.claim_folder(folder) == files.claim_folder(folder) == folder and not list(folder.iterdir())
    (folder / "plain").write_text("old")
    os.link(folder / "plain", folder / "ours.json")
    save_json(folder / "ours.json", {})
    assert (folder / "plain").read_text() == "old"  # a new file took the name, the old one was not written into
    assert os.stat(folder / "ours.json").st_mode == os.stat(folder / "plain").st_mode  # no stricter than other files
    refused("cannot write", files.claim_folder, folder / "plain")
    below = folder / "plain" / "below"  # what stands below a file is refused to root as well
    for name, write in {"folder": files.claim_folder, **WRITERS}.items():
        refused("cannot write .*each part of the path", write, below / name)


def test_json_keeps_order_and_is_strict(tmp_path: Path) -> None:
    odd = {"z": np.float32(0.5), "a": np.int64(3), 7: (np.bool_(True), np.nan, np.inf), "é": np.array([1, np.nan])}
    save_json(tmp_path / "a.json", {**odd, "path": Path("x"), "none": None, "text": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "z": 0.5,\n') and text.endswith("}\n")
    got = json.loads(text)
    assert list(got) == ["z", "a", "7", "é", "path", "none", "text"]
    assert list(got.values()) == [0.5, 3, [True, None, None], [1.0, None], "x", None, "é"]
    with pytest.raises(TypeError):
        save_json(tmp_path / "b.json", {"what": object()})


def test_sha256_of_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listed = files.claim_folder(tmp_path / "series"), Path.rglob
    for name in ("1.dcm", "2.dcm"):
        (folder / name).write_bytes(name.encode() * 400_000)  # several pieces
    assert files.sha256_of(folder / "1.dcm") == hashlib.sha256(b"1.dcm" * 400_000).hexdigest()
    seen = [files.sha256_of(folder)]
    monkeypatch.setattr(Path, "rglob", lambda *args: reversed(list(listed(*args))))
    assert files.sha256_of(folder) == seen[0]  # disks list in any order
    (folder / "2.dcm").rename(folder / "3.dcm")
    seen.append(files.sha256_of(folder))
    (folder / "3.dcm").write_bytes(b"x")
    assert len({*seen, files.sha256_of(folder)}) == 3
    refused("no files", files.sha256_of, files.claim_folder(tmp_path / "empty"))
    refused("No such file", files.sha256_of, tmp_path / "missing")
