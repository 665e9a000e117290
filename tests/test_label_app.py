"""The real MONAI Label server on this machine, asked as a viewer asks; in the environment of requirements-label.txt.

``NCF_LABEL_PYTHON`` names the Python of that environment; without it, ``.venv-label`` beside README.md is tried.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine

from scripts.phantom import LABELS, PhantomPair, breathing_thorax, write
from scripts.presets import CONFIGS
from scripts.saved import SavedResult
from tests.label_client import Client

pytestmark = pytest.mark.label

ROOT = Path(__file__).parent.parent
PATIENCE_S = 240  # the server's imports alone take 10 to 30 s on a busy machine
FREE_S = 1.0  # for an answer while a fit uses every core: a few ms are usual, a fit takes seconds
LEVEL = {"voxels": 3000, "control_points": 300, "iterations": 30, "learning_rate": 1e-3}
OVERLAYS = {"tiny": [LEVEL], "long": [{**LEVEL, "voxels": 30000, "iterations": 250}]}  # below a second; some seconds
LEFT = 0.3  # of the way from the moving liver to the fixed one, after a fit this short; 0.12 was seen
LABELLED = "anna_plan"


@pytest.fixture(scope="module")
def python() -> str:
    """The Python that has MONAI Label."""
    named = os.environ.get("NCF_LABEL_PYTHON", str(ROOT / ".venv-label" / "bin" / "python"))
    if not Path(named).exists():
        pytest.skip(f"no MONAI Label: {named} is missing; see docs/monai_label.md, or set NCF_LABEL_PYTHON")
    return named


@pytest.fixture(scope="module")
def oblique() -> PhantomPair:
    """A chest whose scans are stored in orders of their own: fixed L P S, moving turned and mirrored."""
    shape = (24, 22, 26)
    turned = np.array([[0, 0, 1, 0], [-1, 0, 0, 21], [0, 1, 0, 0], [0, 0, 0, 1]])  # moving index (a, b, c) -> (c, 21 - a, b)
    affine = breathing_thorax(shape, seed=1).affine
    return breathing_thorax(shape, seed=1, moving_shape=(22, 26, 24), moving_affine=affine @ turned)


@pytest.fixture(scope="module")
def study(oblique: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a labelled scan of Anna and two without, and one of Ben."""
    folder = tmp_path_factory.mktemp("study with a space")
    paths = write(oblique, tmp_path_factory.mktemp("phantom"))
    (folder / "labels" / "final").mkdir(parents=True)
    for scan, of in ((LABELLED, "moving"), ("anna_day1", "fixed"), ("anna_day2", "fixed"), ("ben_day1", "fixed")):
        shutil.copyfile(paths[of], folder / f"{scan}.nii.gz")
    shutil.copyfile(paths["moving_label"], folder / "labels" / "final" / f"{LABELLED}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(python: str, study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A running server over the folder, of a copy of the bundle with two presets more; stopped as by Ctrl-C."""
    root, here = tmp_path_factory.mktemp("bundle"), tmp_path_factory.mktemp("here")
    shutil.copytree(CONFIGS, root / "configs")
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name, levels in OVERLAYS.items():
        (root / "configs" / f"{name}.json").write_text(json.dumps({"fit::levels": levels}), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "scripts", "label_server", "--studies", str(study), "--port", str(port)]
    command += ["--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(here)}
    log = here.parent / f"{here.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=here, env=environment, stdout=file, stderr=subprocess.STDOUT)
    client = Client(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: process.poll() is not None or answers(client), log)
        assert process.poll() is None, log.read_text()
        yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE_S)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert not list(here.iterdir()) and {path.name for path in root.iterdir()} == {"configs", "scripts"}
    assert not answers(client)


def wait_for(condition: Any, log: Path) -> None:
    """Returns once the condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, log.read_text() if log.is_file() else log
        time.sleep(0.1)


def answers(client: Client) -> bool:
    try:
        return client.ask("GET", "/info/").status == 200
    except ConnectionError:
        return False


def centre_mm(label: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Of the liver, in RAS mm."""
    return apply_affine(affine, np.argwhere(label == LABELS["liver"]).mean(axis=0))


def test_info_has_what_a_viewer_lists(server: Client) -> None:
    told = server.ask("GET", "/info/").json
    model = told["models"]["ncf"]
    assert told["name"] == "NCF" and model["type"] == "segmentation" and model["dimension"] == 3
    # segments are made of the names at the top, and a reply is imported by their order: value 1 first
    assert told["labels"] == [f"label_{value}" for value in range(1, max(LABELS.values()) + 1)]
    config = model["config"]
    assert config["moving"][1:] == ["anna_day1", "anna_day2", LABELLED, "ben_day1"]
    assert config["preset"][0] == "default" and {"fast", "paper"} < set(config["preset"])
    assert (config["seed"], config["align_centres"]) == (0, False)
    assert all(isinstance(choice, str) for options in (config["moving"], config["preset"]) for choice in options)
    # what a viewer sends back when nothing was chosen: the first of every list
    first = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
    assert server.infer("ben_day1", **first).sentence.startswith("moving was not named")
    assert told["datastore"]["total"] == 4 and not told["trainers"]


def test_the_label_comes_back_on_the_fixed_grid(server: Client, study: Path, oblique: PhantomPair) -> None:
    answer = server.infer("anna_day1", "all", preset="tiny", seed=3)
    told, (name, label) = json.loads(answer.parts["params"][1]), answer.parts["image"]
    assert (told["fixed"], told["moving"], told["preset"], told["seed"]) == ("anna_day1", LABELLED, "tiny", 3)
    assert list(told["label_names"].values()) == [1, 2, 3, 4] and name and name.startswith("anna_day1")
    folder = study / "registrations" / f"anna_day1__{LABELLED}"
    saved = SavedResult(folder)
    assert told["metrics"] == saved.metrics and saved.run["config"]["seed"] == 3
    assert {Path(path) for path in told["paths"].values()} < set(folder.iterdir())
    image = nib.Nifti1Image.from_bytes(gzip.decompress(label))
    assert np.array_equal(image.affine, oblique.affine) and image.shape == oblique.fixed.shape
    carried = np.asarray(image.dataobj)
    assert np.array_equal(carried, np.asarray(nib.load(told["paths"]["label"]).dataobj))
    assert set(np.unique(carried)) == set(LABELS.values())
    fixed, moving = centre_mm(oblique.fixed_label, oblique.affine), centre_mm(oblique.moving_label, oblique.moving_affine)
    missed = np.linalg.norm(centre_mm(carried, image.affine) - fixed)
    assert missed < LEFT * np.linalg.norm(moving - fixed)


def test_output_is_json_or_an_image_of_the_type_asked_for(server: Client, study: Path, tmp_path: Path) -> None:
    told = server.infer("anna_day1", preset="tiny")
    image = server.infer("anna_day1", "image", preset="tiny", result_extension=".nrrd")
    assert (told.status, told.kind, image.status) == (200, "application/json", 200)
    (tmp_path / "reply.nrrd").write_bytes(image.body)
    reply, label = sitk.ReadImage(tmp_path / "reply.nrrd"), sitk.ReadImage(told.json["paths"]["label"])
    assert np.array_equal(sitk.GetArrayViewFromImage(reply), sitk.GetArrayViewFromImage(label))
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(reply, get)(), getattr(label, get)(), atol=1e-6)  # mm, NIfTI's float32
    only = {".lock", f"anna_day1__{LABELLED}"}
    # copies that were sent are removed, right after the last byte
    wait_for(lambda: {path.name for path in (study / "registrations").iterdir()} == only, tmp_path)


@pytest.mark.parametrize(
    ("image", "given", "telling"),
    [
        ("carl", {}, "image: no scan 'carl'"),
        ("ben_day1", {}, "patient 'ben'"),
        ("anna_day1", {"moving": "carl"}, "moving: no scan 'carl'"),
        ("anna_day1", {"moving": "anna_day2"}, "has no saved label"),
        ("anna_day1", {"preset": "papr"}, "preset is one of"),
        ("anna_day1", {"seed": "x"}, "seed must be"),
        ("anna_day1", {"movin": LABELLED}, "did you mean moving?"),
        ("anna_day1", {"params": "{"}, "params must be a JSON object"),
        ("anna_day1", {"params": "[1]"}, "params must be a JSON object"),
        ("anna_day1", {"model": "spleen"}, "no model 'spleen'; there is: ncf"),
        ("../anna_day1", {}, "no scan '../anna_day1'"),
        ("/etc/passwd", {}, "no scan '/etc/passwd'"),
        ("anna_day1", {"moving": "/etc/passwd"}, "no scan '/etc/passwd'"),
        ("anna_day1", {"moving": f"registrations/../{LABELLED}"}, "no scan"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_refusal_is_a_sentence(server: Client, image: str, given: dict[str, Any], telling: str) -> None:
    assert telling in server.infer(image, **given).sentence


def test_nothing_is_read_or_written_outside_of_the_study(server: Client, study: Path) -> None:
    scan = (study / "anna_day1.nii.gz").read_bytes()
    before = {path for path in study.parent.rglob("*") if study not in path.parents}
    for name in ("../evil", "/evil", ".hidden", "a/b"):
        assert "plain name" in server.upload("/datastore/image", "file", scan, name="x.nii.gz", image=name).sentence
        save = {"image": "anna_day1", "tag": name}
        assert "plain name" in server.upload("/datastore/label", "label", scan, name="x.nii.gz", **save).sentence
    assert "a scan is one of" in server.upload("/datastore/image", "file", b"", name="x.py", image="evil").sentence
    assert "not found" in server.upload("/datastore/label", "label", scan, name="x.nii.gz", image="../evil").sentence
    assert "sessions are not offered" in server.ask("GET", "/session/x").sentence
    assert server.ask("GET", "/datastore/image", image="../evil").status == 404
    assert server.allows(server.address) and not server.allows("http://evil.example")
    assert before == {path for path in study.parent.rglob("*") if study not in path.parents}
    assert not list(study.rglob("*evil*")) and not list(study.rglob(".hidden*"))


def test_the_server_answers_while_it_registers_and_two_do_not_mix(server: Client, study: Path) -> None:
    with ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        both = [pool.submit(server.infer, f"anna_day{day}", preset="long", seed=day) for day in (1, 2)]
        waits = []
        while not all(request.done() for request in both):
            asked = time.monotonic()
            assert answers(server)
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        took = time.monotonic() - begun
    told = [request.result().json for request in both]
    assert [(one["fixed"], one["seed"]) for one in told] == [("anna_day1", 1), ("anna_day2", 2)]
    assert [one["metrics"]["name"] for one in told] == [f"anna_day{day}__{LABELLED}" for day in (1, 2)]
    print(f"both {took:.1f} s; GET /info/ at most {1000 * max(waits):.0f} ms, {len(waits)} times")
    assert max(waits) < FREE_S < took


def test_a_batch_stores_labels_and_goes_on_after_a_failure(server: Client, study: Path, tmp_path: Path) -> None:
    started = server.ask("POST", "/batch/infer/ncf", body=json.dumps({"preset": "tiny"}).encode(), images="unlabeled")
    assert started.status == 200
    wait_for(lambda: server.ask("GET", "/batch/infer").json["status"] not in ("SUBMITTED", "RUNNING"), tmp_path)
    task = server.ask("GET", "/batch/infer").json
    assert task["status"] == "DONE", task
    said = "\n".join(task["details"])
    assert "anna_day1: done" in said and "anna_day2: done" in said and "ben_day1: moving was not named" in said
    original = study / "labels" / "original"
    assert {path.name for path in original.iterdir()} == {"anna_day1.nii.gz", "anna_day2.nii.gz"}
    carried = study / "registrations" / f"anna_day1__{LABELLED}" / "warped_label.nii.gz"
    assert (original / "anna_day1.nii.gz").read_bytes() == carried.read_bytes()
    # what a model made is not taken for a label that somebody saved
    assert "has no saved label" in server.infer("anna_day1", moving="anna_day2").sentence


def test_a_saved_label_has_its_names_and_can_be_carried_over(server: Client, study: Path, oblique: PhantomPair) -> None:
    label = gzip.compress(nib.Nifti1Image(oblique.fixed_label, oblique.affine).to_bytes())
    names = json.dumps({"label_info": [{"name": "heart", "idx": LABELS["heart"]}]})
    target = {"image": "anna_day2", "tag": "final"}
    answer = server.upload("/datastore/label", "label", label, name="x.nii.gz", params=names, **target)
    assert answer.status == 200 and (study / "labels" / "final" / "anna_day2.nii.gz").exists()
    told = server.infer("anna_day1", moving="anna_day2", preset="tiny").json
    assert told["label_names"]["heart"] == LABELS["heart"]
    assert "heart" in server.ask("GET", "/info/").json["labels"]


def test_a_damaged_label_is_told_where_it_is_used(server: Client, study: Path, tmp_path: Path) -> None:
    shutil.copyfile(study / "ben_day1.nii.gz", study / "ben_plan.nii.gz")
    wait_for(lambda: "ben_plan" in server.ask("GET", "/info/").json["models"]["ncf"]["config"]["moving"], tmp_path)
    (study / "labels" / "final" / "ben_plan.nii.gz").write_bytes(b"no label")
    wait_for(
        lambda: "final" in server.ask("GET", "/datastore/", output="all").json["objects"]["ben_plan"]["labels"], tmp_path
    )
    assert answers(server)
    assert "moving_label: cannot read" in server.infer("ben_day1", preset="tiny").sentence


def test_without_monai_label_the_command_says_so(study: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts", "label_server", "--studies", str(study), "--port", "8123"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert "needs MONAI Label" in ended.stderr and "docs/monai_label.md" in ended.stderr
