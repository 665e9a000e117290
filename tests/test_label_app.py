"""The real MONAI Label server on this machine, asked as a viewer asks; in the environment of requirements-label.txt.

``NCF_LABEL_PYTHON`` names the Python of that environment; without it, ``.venv-label`` beside README.md is tried.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine

import ncf
from ncf.phantom.chest import LABELS, PhantomPair, breathing_thorax, write
from ncf.result.folder import SavedResult
from tests.bundles import copy_bundle
from tests.label_client import Client, Server, processes_of, started, wait_for

pytestmark = pytest.mark.label

ROOT = Path(__file__).parent.parent
FREE_S = 1.0  # for an answer while a fit uses every core: a few ms are usual, a fit takes seconds
LEVEL = {"voxels": 3000, "control_points": 300, "iterations": 30, "learning_rate": 1e-3}
LONG = {**LEVEL, "voxels": 30000, "iterations": 250}
# below a second; some seconds; hours
OVERLAYS = {"tiny": {"only": LEVEL}, "long": {"only": LONG}, "endless": {"only": {**LONG, "iterations": 10**6}}}
END_S = 30.0  # of a server that is told to end; 3 s were seen on a busy machine
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
    turned = np.array(
        [[0, 0, 1, 0], [-1, 0, 0, 21], [0, 1, 0, 0], [0, 0, 0, 1]]
    )  # moving index (a, b, c) -> (c, 21 - a, b)
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
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle with two presets more."""
    return copy_bundle(tmp_path_factory.mktemp("bundle"), OVERLAYS)


@pytest.fixture(scope="module")
def running(python: str, study: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over the folder, stopped as by Ctrl-C."""
    here = tmp_path_factory.mktemp("here")
    with started(command(python, study), root=bundle, here=here) as server:
        yield server
        assert server.end(signal.SIGINT) == 0
    assert not list(here.iterdir()) and {path.name for path in bundle.iterdir()} == {"configs", "ncf", "scripts"}


@pytest.fixture
def server(running: Server) -> Client:
    """A viewer of it."""
    return running.client


def command(python: str, study: Path) -> list[str]:
    return [python, "-m", "ncf", "label_server", "--studies", str(study), "--device", "cpu"]


def centre_mm(label: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Of the liver, in RAS mm."""
    return apply_affine(affine, np.argwhere(label == LABELS["liver"]).mean(axis=0))


def test_info_has_what_a_viewer_lists(server: Client) -> None:
    told = server.ask("GET", "/info/").json
    model = told["models"]["ncf"]
    assert (
        told["name"] == "NCF"
        and told["version"] == ncf.__version__
        and model["type"] == "segmentation"
        and model["dimension"] == 3
    )
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
    # a viewer asks this at every change of its panel, and takes 404 for: no, nothing is being trained
    assert server.ask("GET", "/train/?check_if_running=true").status == 404


def test_its_pages_list_what_can_be_asked_and_load_nothing_from_elsewhere(server: Client) -> None:
    told = server.ask("GET", "/openapi.json").json
    assert told["info"] == {"title": "NCF", "version": ncf.__version__} and "/" not in told["paths"]
    for path in ("/", "/docs"):
        page = server.ask("GET", path)
        text = page.body.decode()
        assert page.status == 200 and page.kind.startswith("text/html")
        assert re.findall(r'(?:src|href)="([^"]*)"', text) == ["data:,", "/openapi.json"] and "<script" not in text
        for name, methods in told["paths"].items():
            assert all(f"{method.upper()} {html.escape(name)}</code>" in text for method in methods)
    assert server.ask("GET", "/redoc").status == 404


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
    fixed, moving = (
        centre_mm(oblique.fixed_label, oblique.affine),
        centre_mm(oblique.moving_label, oblique.moving_affine),
    )
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
    assert (
        "a label is one of" in server.upload("/datastore/label", "label", b"", name="x.sh", image="ben_day1").sentence
    )
    assert "not found" in server.upload("/datastore/label", "label", scan, name="x.nii.gz", image="../evil").sentence
    assert "sessions are not offered" in server.ask("GET", "/session/x").sentence
    assert server.ask("GET", "/datastore/image", image="../evil").status == 404
    assert server.allows(server.address) and not server.allows("http://evil.example")
    assert before == {path for path in study.parent.rglob("*") if study not in path.parents}
    assert not list(study.rglob("*evil*")) and not list(study.rglob(".hidden*")) and not list(study.rglob("*.sh"))
    for door in ("/reload", "/model/ncf", "/logs/", "/proxy/dicom/x", "/ohif/x"):  # of MONAI Label's, not of ours
        assert {server.ask(method, door).status for method in ("GET", "POST", "PUT")} <= {404, 405}


def test_nothing_stays_of_what_passed_through(running: Server, server: Client, study: Path) -> None:
    scan = (study / "anna_day1.nii.gz").read_bytes()
    packed = server.ask("GET", "/datastore/dataset")
    with zipfile.ZipFile(io.BytesIO(packed.body)) as archive:
        assert archive.namelist() == [f"{kind}/{LABELLED}.nii.gz" for kind in ("image", "label")] + ["metadata.json"]
        assert archive.read(archive.namelist()[0]) == (study / f"{LABELLED}.nii.gz").read_bytes()
    for given in (
        {"image": "carl"},
        {"image": "anna_day1", "params": "{"},
        {"image": "anna_day1", "params": '{"a": NaN}'},
    ):
        assert server.upload("/datastore/label", "label", scan, name="x.nii.gz", **given).sentence
    assert "ask with image=ID" in server.upload("/infer/ncf", "file", scan, name="x.nii.gz", method="POST").sentence
    assert "no DICOM" in server.infer("anna_day1", "dicom_seg", preset="tiny").sentence
    assert "plain name" in server.infer("anna_day1", preset="tiny", save_label=True, label_tag="../x").sentence
    wait_for(lambda: not running.passing, running.log)
    assert not list(study.rglob("anna_day1__*.*"))  # result folders have no dot


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/infer/ncf", {"image": "carl"}),
        ("PUT", "/datastore/image/info", {"image": "carl"}),
        ("DELETE", "/datastore/label", {"id": "carl", "tag": "final"}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_page_of_another_address_changes_and_reads_nothing(
    server: Client, method: str, path: str, query: dict[str, str]
) -> None:
    port = server.address.rpartition(":")[2]
    own = [{}, {"Origin": server.address}, {"Origin": f"http://localhost:{port}"}]
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    assert all("carl" in server.ask(method, path, told=told, **query).sentence for told in (*own, tunnel))
    for page in ("http://evil.example", "null", "http://127.0.0.1:1"):
        refused = server.ask(method, path, told={"Origin": page}, **query)
        assert refused.status == 403 and "may not change anything here" in refused.json["detail"]
    # a name of theirs that leads to this machine
    told = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
    for refused in (
        server.ask(method, path, told=told, **query),
        server.ask("GET", "/datastore/image", told=told, image="anna_day1"),
    ):
        assert (refused.status, refused.body) == (400, b"Invalid host header")


def test_what_a_link_leads_to_stays(server: Client, study: Path, tmp_path: Path) -> None:
    carls = ("carl_day1", "carl_day2")
    links = [study / folder / f"{scan}.nii.gz" for folder in (".", "labels/final") for scan in carls]
    kept = [tmp_path / f"{number}.nii.gz" for number in range(len(links))]
    for link, path in zip(links, kept, strict=True):
        path.write_bytes(path.name.encode())
        link.symlink_to(path)
    wait_for(
        lambda: all(server.ask("GET", "/datastore/label", label=scan, tag="final").status == 200 for scan in carls),
        tmp_path,
    )
    sent = (study / "anna_day1.nii.gz").read_bytes()
    assert server.upload("/datastore/label", "label", sent, name="x.nii.gz", image=carls[0]).status == 200
    assert server.upload("/datastore/image", "file", sent, name="x.nii.gz", image=carls[0]).status == 200
    assert links[0].read_bytes() == links[2].read_bytes() == sent
    assert {server.ask("DELETE", "/datastore/image", id=scan).status for scan in carls} == {200}
    assert not any(link.is_symlink() for link in links) and all(
        path.read_bytes() == path.name.encode() for path in kept
    )
    wait_for(lambda: not set(carls) & set(server.ask("GET", "/datastore/", output="all").json["objects"]), tmp_path)


def test_the_server_answers_while_it_registers_and_none_are_mixed(server: Client, study: Path) -> None:
    with ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        both = [pool.submit(server.infer, f"anna_day{day}", preset="long", seed=day) for day in (1, 2)]
        batch = pool.submit(server.batch, ["anna_day2"], run_sync="true", preset="long", max_batch_size=1)
        waits = []
        while not all(request.done() for request in (*both, batch)):
            asked = time.monotonic()
            assert server.answers()
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        took = time.monotonic() - begun
    told = [request.result().json for request in both]
    assert [(one["fixed"], one["seed"]) for one in told] == [("anna_day1", 1), ("anna_day2", 2)]
    assert [one["metrics"]["name"] for one in told] == [f"anna_day{day}__{LABELLED}" for day in (1, 2)]
    assert batch.result().json["anna_day2"]["label"] == "anna_day2"
    print(f"all {took:.1f} s; GET /info/ at most {1000 * max(waits):.0f} ms, {len(waits)} times")
    assert max(waits) < FREE_S < took


def test_a_batch_stores_labels_and_goes_on_after_a_failure(server: Client, study: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")  # no code of a viewer's is run
    assert server.batch("unlabeled", preset="tiny", gpus=[0], bundle_path=str(tmp_path)).status == 200
    wait_for(lambda: server.ask("GET", "/batch/infer").json["status"] not in ("SUBMITTED", "RUNNING"), tmp_path)
    task = server.ask("GET", "/batch/infer").json
    assert task["status"] == "DONE" and not (tmp_path / "run").exists(), task
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


def test_points_and_labels_of_a_person_lead_the_fit(server: Client, study: Path, oblique: PhantomPair) -> None:
    asked = {"moving": LABELLED, "preset": "tiny", "guide_points": True}
    assert "no points/anna_day1.mrk.json" in server.infer("anna_day1", **asked).sentence
    (study / "points").mkdir()
    landmarks = zip(np.hsplit(oblique.landmarks[:5], 2), (oblique.affine, oblique.moving_affine), strict=True)
    for scan, (points, affine) in zip(("anna_day1", LABELLED), landmarks, strict=True):
        rows = [",".join(map(str, ("point", *point))) for point in apply_affine(affine, points)]
        (study / "points" / f"{scan}.fcsv").write_text("\n".join(["# CoordinateSystem = RAS", *rows]))
    told = server.infer("anna_day1", **asked, rigid_label=str(LABELS["heart"]))
    assert "rigid_label" in told.sentence and "fixed_label" in told.sentence  # the open scan has none
    led = server.infer("anna_day1", **asked).json["metrics"]["guide_points_mm"]
    assert led["after"]["mean"] < led["before"]["mean"]


def test_a_damaged_label_is_told_where_it_is_used(server: Client, study: Path, tmp_path: Path) -> None:
    shutil.copyfile(study / "ben_day1.nii.gz", study / "ben_plan.nii.gz")
    wait_for(lambda: "ben_plan" in server.ask("GET", "/info/").json["models"]["ncf"]["config"]["moving"], tmp_path)
    (study / "labels" / "final" / "ben_plan.nii.gz").write_bytes(b"no label")
    wait_for(
        lambda: "final" in server.ask("GET", "/datastore/", output="all").json["objects"]["ben_plan"]["labels"],
        tmp_path,
    )
    assert server.answers()
    assert "moving_label: cannot read" in server.infer("ben_day1", preset="tiny").sentence


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP], ids=lambda by: by.name)
def test_a_server_that_is_ended_leaves_nothing(
    by: signal.Signals, python: str, bundle: Path, study: Path, tmp_path: Path
) -> None:
    scans, here = tmp_path / "scans", tmp_path / "here"
    here.mkdir()
    for scan in (f"{LABELLED}.nii.gz", f"labels/final/{LABELLED}.nii.gz", "anna_day1.nii.gz"):
        (scans / scan).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(study / scan, scans / scan)
    with started(command(python, scans), root=bundle, here=here) as server, ThreadPoolExecutor() as pool:
        both = [pool.submit(server.client.infer, "anna_day1", preset="endless") for _ in range(2)]
        server.client.batch("unlabeled", preset="endless")
        wait_for(lambda: server.client.ask("GET", "/batch/infer").json["status"] == "RUNNING", server.log)
        (next(server.passage.iterdir()) / "scan.nii.gz").write_bytes(b"left by a request that broke off")
        wait_for(lambda: len(processes_of(server.process.pid)) > 3, server.log)  # the server, its worker, a batch
        ended = time.monotonic()
        assert server.end(by) == 128 + signal.SIGTERM
        assert time.monotonic() - ended < END_S
        assert all("is being stopped" in request.result().sentence for request in both)


def test_without_monai_label_the_command_says_so(study: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ncf", "label_server", "--studies", str(study), "--port", "8123"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert "needs MONAI Label" in ended.stderr and "docs/monai_label.md" in ended.stderr
