"""The wheel in an empty environment: everything it needs is in it, and nothing near by takes its place.

``python -m pytest -m wheel``; it installs all dependencies anew, which takes minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.bundles import ROOT, copy_bundle

pytestmark = pytest.mark.wheel

PATIENCE_S = 900  # pip loads some 500 MB
PHANTOM = "--phantom_size=32,32,32"
LEVELS = {"only": {"voxels": 3000, "control_points": 300, "iterations": 8, "learning_rate": 1e-3}}
PYTHON = """
import nibabel, ncf
from ncf import register
fixed, moving = (nibabel.load(f"scans/{name}.nii.gz") for name in ("fixed", "moving"))
done = register(fixed, moving, preset="mine.json", device="cpu", progress=False)
print(ncf.__file__, list(done.field.shape))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by pip."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=PATIENCE_S)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and what it depends on, at our versions."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    install = [
        str(programs / "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "-c",
        str(ROOT / "requirements-core.txt"),
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=PATIENCE_S)
    return programs


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A user's folder that holds things of the same names as ours."""
    for name in ("scripts", "configs", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong one')\n", encoding="utf-8")
    for name in ("inference.json", "metadata.json", "fast.json"):
        (tmp_path / "configs" / name).write_text('{"the": "wrong one"}', encoding="utf-8")
    (tmp_path / "ncf.json").write_text('{"the": "wrong one"}', encoding="utf-8")
    (tmp_path / "mine.json").write_text(json.dumps({"fit::levels": LEVELS, "inferer::search": None}), encoding="utf-8")
    return tmp_path


def ran(here: Path, *command: object) -> str:
    """What a command prints that ends well, in a folder and without this checkout on its path."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=here,
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_the_wheel_holds_the_library_the_configs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"ncf"}
    presets = [f"ncf/bundle/configs/presets/{path.name}" for path in (ROOT / "configs" / "presets").glob("*.json")]
    page = [path for room in ("templates", "vendor") for path in (ROOT / "ncf" / "report" / room).rglob("*")]
    templates = [path.relative_to(ROOT).as_posix() for path in page if path.is_file()]
    starts = ["ncf/bundle/configs/inference.json", "ncf/bundle/scripts/label_app/main.py", "ncf/py.typed"]
    assert {*presets, *templates, *starts} <= names and not [name for name in names if name.endswith(".pyc")]


def test_every_face_works_where_the_wheel_is_installed(environment: Path, crowded: Path) -> None:
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert ran(crowded, environment / "ncf", "--version").strip() == metadata["version"]
    mine = ("--preset=mine.json", "--device=cpu", "--progress=false")
    assert "Registered phantom" in ran(crowded, environment / "ncf", "register", PHANTOM, *mine, "--output_dir=a")
    assert (crowded / "a" / "phantom" / "report.html").exists()
    inside = ran(
        crowded, environment / "python", "-c", "from ncf.core.presets import config; print(config('inference'))"
    )
    assert inside.startswith(str(environment.parent)), inside
    files = str([inside.strip(), "mine.json"])
    bundle = ("-m", "monai.bundle", "run", "--config_file", files, "--phantom_size", "[32,32,32]", "--device", "cpu")
    assert "Registered phantom" in ran(crowded, environment / "python", *bundle, "--output_dir", "b")
    fields = [(crowded / folder / "phantom" / "displacement.nii.gz").read_bytes() for folder in ("a", "b")]
    assert fields[0] == fields[1]
    record = json.loads((crowded / "a" / "phantom" / "run.json").read_text(encoding="utf-8"))
    (crowded / "scans").mkdir()
    for key in ("fixed", "moving"):
        (crowded / "scans" / f"{key}.nii.gz").write_bytes(Path(record["inputs"][key]["path"]).read_bytes())
    told = ran(crowded, environment / "python", "-c", PYTHON)
    assert told.startswith(str(environment.parent)) and "[3, 32, 32, 32]" in told


def test_an_unpacked_bundle_runs_where_the_library_is_not_installed(environment: Path, crowded: Path) -> None:
    ran(crowded, environment / "python", "-m", "pip", "uninstall", "-q", "-y", "ncf-registration")
    bundle = copy_bundle(crowded / "bundles" / "ncf", {"tiny": LEVELS})
    (crowded / "here").mkdir()
    files = str([str(bundle / "configs" / f"{name}.json") for name in ("inference", "presets/tiny")])
    words = ("-m", "monai.bundle", "run", "--config_file", files, "--phantom_size", "[32,32,32]", "--device", "cpu")
    assert "Registered phantom" in ran(crowded / "here", environment / "python", *words)
    assert [path.name for path in (crowded / "here").iterdir()] == ["output"]
