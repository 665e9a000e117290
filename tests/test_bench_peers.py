"""The real peers on a small phantom: they register, and their saved field warps as they warp themselves.

``python -m pytest -m peers`` in an environment that has them; NCF_PEERS_PYTHON names another environment's Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.methods import Method, Settings, run_one
from benchmarks.pairs import Pair, with_phantom
from benchmarks.processes import environment

PYTHON = os.environ.get("NCF_PEERS_PYTHON", sys.executable)
SIZE = (64, 56, 60)
BORDER_VOX = 6  # programs differ in what they read beyond a scan's edge
NOISE_HU = 5.0  # mean difference of two warps by one field: interpolation in float32 against float64, rounded int16
MODULES = {
    "elastix": "itk.ElastixRegistrationMethod",
    "syn": "ants.registration",
    "convexadam": "convexAdam.__name__",
    "greedy": "picsl_greedy.Greedy3D",
}

# Warps the moving scan as the program itself does after a fit of its own, which is written as a field as well.
OWN_WARP = {
    "elastix": """
import itk
fixed, moving = itk.imread(f, itk.F), itk.imread(m, itk.F)
register = itk.elastix_registration_method
def spy(*a, **k):
    spy.found = register(*a, **k); return spy.found
itk.elastix_registration_method = spy
from benchmarks.peers import elastix as peer
peer.register(P(f), P(m), P(u), threads=2, preset="default")
found = spy.found[1]
found.SetParameter(found.GetNumberOfParameterMaps() - 1, "FinalBSplineInterpolationOrder", "1")
found.SetParameter(found.GetNumberOfParameterMaps() - 1, "ResultImagePixelType", "float")
itk.imwrite(itk.transformix_filter(moving, found), w)
""",
    "syn": """
import ants
register = ants.registration
def spy(*a, **k):
    spy.found = register(*a, **k); own = ants.apply_transforms(a[0], a[1], spy.found["fwdtransforms"])
    ants.image_write(own, w); return spy.found
ants.registration = spy
from benchmarks.peers import syn as peer
peer.register(P(f), P(m), P(u), threads=2, preset="default")
""",
    "greedy": """
import picsl_greedy
class Spy(picsl_greedy.Greedy3D):
    def execute(self, command):
        super().execute(command)
        if " -rc " in command:
            super().execute(f"{command.partition(' -rc ')[0]} -rm {m} {w}")
picsl_greedy.Greedy3D = Spy
from benchmarks.peers import greedy as peer
peer.register(P(f), P(m), P(u), threads=2, preset="default")
""",
}


def installed(name: str) -> bool:
    """Whether the Python of the peers has this one."""
    module, _, attribute = MODULES[name].rpartition(".")
    words = [PYTHON, "-c", f"import {module}; {module}.{attribute}"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return with_phantom(Pair("phantom"), tmp_path_factory.mktemp("phantom"), size=SIZE)


@pytest.mark.peers
@pytest.mark.parametrize("name", MODULES)
def test_a_peer_brings_landmarks_together(name: str, phantom: Pair, tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed in {PYTHON}")
    settings = Settings(tmp_path, device="cpu", peers_python=PYTHON)
    line = run_one(Method(name, name), phantom, seed=None, settings=settings)
    before = run_one(Method("none", "none"), phantom, seed=None, settings=settings)
    assert line["status"] == "done", line.get("reason")
    assert line["tre_mm"]["mean"] < before["tre_mm"]["mean"] / 3
    assert line["dice"]["mean"] > before["dice"]["mean"] + 0.1
    reading = set() if name == "greedy" else {"reading"}  # Greedy reads while it fits
    assert set(line["seconds"]) == {"whole", "fitting", "writing", *reading}


@pytest.mark.peers
@pytest.mark.parametrize("name", OWN_WARP)
def test_its_field_warps_as_it_warps_itself(name: str, phantom: Pair, tmp_path: Path) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed in {PYTHON}")
    field, own = tmp_path / "field.nii", tmp_path / "own.nii"
    names = {"f": phantom.files["fixed"], "m": phantom.files["moving"], "u": field, "w": own}
    given = "; ".join(f"{key} = {json.dumps(str(path))}" for key, path in names.items())
    code = f"from pathlib import Path as P; {given}\n{OWN_WARP[name]}"
    subprocess.run(
        [PYTHON, "-c", code], env=environment(threads=2, device="cpu"), cwd=tmp_path, check=True, capture_output=True
    )
    fixed, moving = (sitk.ReadImage(str(phantom.files[key]), sitk.sitkFloat32) for key in ("fixed", "moving"))
    move = sitk.DisplacementFieldTransform(sitk.ReadImage(str(field), sitk.sitkVectorFloat64))
    inner = (slice(BORDER_VOX, -BORDER_VOX),) * 3
    ours = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, move, sitk.sitkLinear, -1000.0))[inner]
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(own), sitk.sitkFloat32))[inner]
    unmoved = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkLinear, -1000.0))[inner]
    assert np.abs(ours - theirs).mean() < NOISE_HU < 10 * NOISE_HU < np.abs(ours - unmoved).mean()
