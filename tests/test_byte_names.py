"""Files and folders whose names are no UTF-8, as old disks have them, through the commands from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ncf.core.files import encoded, save_json
from ncf.io.dicom.series import read_series
from ncf.io.image_files import read_image
from tests.conftest import LEVELS, NO_SEARCH, ROOT
from tests.dicom_pair import MOVING_AFFINE, MOVING_SHAPE
from tests.test_dicom_enhanced import AFFINE, SHAPE, enhanced

FOLDER, NAME = os.fsdecode(b"st\xfcdy"), os.fsdecode(b"sc\xe4n")


def test_what_is_no_utf8_is_written_readably(tmp_path: Path) -> None:
    assert encoded("ü" + NAME) == b"\xc3\xbcsc\\udce4n"
    save_json(tmp_path / "a.json", {"path": NAME})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"path": NAME}


def ncf(*arguments: str) -> str:
    """What a command prints; it succeeds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ncf", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment)
    told = os.fsdecode(done.stdout + done.stderr)
    assert done.returncode == 0 and "Traceback" not in told, told[-2000:]
    return told


@pytest.mark.slow
def test_nifti_files(tmp_path: Path, pair: Mapping[str, str]) -> None:
    (tmp_path / FOLDER).mkdir()
    named = {
        key: tmp_path / FOLDER / f"{NAME}_{key}.nii.gz" for key in ("fixed", "moving", "fixed_label", "moving_label")
    }
    for key, path in named.items():
        path.write_bytes(Path(pair[key]).read_bytes())
    (tmp_path / "tiny.json").write_text(json.dumps({"fit::levels": LEVELS, **NO_SEARCH}), encoding="utf-8")
    options = [f"--{key}={path}" for key, path in named.items()]
    out = tmp_path / os.fsdecode(b"\xf6ut")
    ncf("register", *options, f"--preset={tmp_path / 'tiny.json'}", f"--output_dir={out}", "--progress=false")
    (result,) = out.iterdir()
    assert (result / "report.html").exists() and json.loads((result / "metrics.json").read_text(encoding="utf-8"))
    run = json.loads((result / "run.json").read_text(encoding="utf-8"))
    assert run["inputs"]["fixed"]["path"] == str(named["fixed"])
    ncf("report", str(result))
    ncf("apply", str(result), "--to=label", f"--output_dir={tmp_path / 'applied'}")
    assert (tmp_path / "applied" / f"{NAME}_moving_label.nii.gz").exists()
    ncf("export", str(result), "--format=nrrd", f"--output_dir={tmp_path / 'exported'}")
    ncf("evaluate", str(out), f"--output_dir={tmp_path / 'evaluated'}")


@pytest.mark.slow
def test_dicom_series(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    fixed = enhanced(tmp_path / FOLDER / f"{NAME}_f", "CT", AFFINE, SHAPE).parent
    moving = enhanced(tmp_path / FOLDER / f"{NAME}_m", "CT", MOVING_AFFINE, MOVING_SHAPE).parent
    overlay = {
        "fit::levels": LEVELS,
        **NO_SEARCH,
        "preparing::transforms::0::min_size": 4,
        "measuring::transforms::2": {"_target_": "Identity"},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(overlay), encoding="utf-8")
    options = [f"--preset={tmp_path / 'tiny.json'}", f"--output_dir={tmp_path / FOLDER}", "--progress=false"]
    ncf("register", str(fixed), str(moving), *options, "--dicom=true", "--name=p", "--report=false")
    values, _, _ = read_series(tmp_path / FOLDER / "p" / "dicom" / "warped", "warped")
    nifti = read_image("x", str(tmp_path / FOLDER / "p" / "warped.nii.gz"))
    np.testing.assert_allclose(values, nifti.numpy()[0], atol=0.501)
    assert "volumes" in ncf("files", str(tmp_path / FOLDER), "--json=true")
