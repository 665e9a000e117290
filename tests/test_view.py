"""A result served to the browser: every voxel, nothing else, to this machine and whoever knows the address alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from nibabel.affines import apply_affine

from ncf.commands.view import view
from ncf.report.serve import ResultServer, result_server
from ncf.result.folder import SavedResult
from tests.browser import browser, found
from tests.conftest import ROOT

Run = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="module")
def result(run: Run, pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return Path(run(tmp_path_factory.mktemp("view"), pair, name="chest").evaluator.state.output["result_dir"])


@pytest.fixture(scope="module")
def server(result: Path) -> Iterator[ResultServer]:
    with result_server(result) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def asked(server: ResultServer, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    told = answer.status, answer.read()
    connection.close()
    return told


def test_every_voxel_of_the_scans_is_served_exactly(server: ResultServer, result: Path) -> None:
    inputs = SavedResult(result).inputs
    for name, path in (("moving", inputs["moving"]), ("warped", result / "warped.nii.gz")):
        status, content = asked(server, f"/{server.token}/volumes/{name}")
        values = nib.load(path).get_fdata(dtype=np.float32)  # type: ignore[attr-defined]
        kind = server.volumes[name].dtype
        got = np.frombuffer(content, kind).reshape(server.volumes[name].shape, order="F")
        assert status == 200 and sorted(got.ravel().tolist()) == pytest.approx(sorted(values.ravel().tolist()))
        if name == "moving":  # on its own grid; the others are turned for display
            np.testing.assert_array_equal(got, values)


def test_nobody_else_is_answered_and_nothing_else_is_served(server: ResultServer, result: Path) -> None:
    ours = f"/{server.token}/"
    assert asked(server, ours)[0] == 200 == asked(server, ours, host=f"localhost:{server.server_port}")[0]
    assert asked(server, ours, host="evil.example")[0] == 403
    assert asked(server, ours, host="evil.example:" + str(server.server_port))[0] == 403
    for path in ("/", "/volumes/fixed", "/wrong/", f"{ours}run.json", f"{ours}volumes/../../etc/passwd", ours + "x"):
        assert asked(server, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE"):
        assert asked(server, ours, method=method)[0] == 501
    assert asked(server, ours, method="HEAD") == (200, b"")
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    assert not (result / "report.html").exists()  # reads only


@pytest.mark.slow
def test_in_the_browser_the_numbers_are_those_of_the_files(server: ResultServer, result: Path, tmp_path: Path) -> None:
    program = found()
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with browser(program, tmp_path) as page:
        page.open(server.url)
        assert page.complaints == []
        assert all(url.startswith((server.url, "data:", "blob:")) for url in page.requests)
        warped = nib.load(result / "warped.nii.gz")
        affine, values = warped.affine, warped.get_fdata()  # type: ignore[attr-defined]
        for place in np.random.default_rng(3).integers(1, np.array(values.shape) - 1, (10, 3)):
            told = page.run(f"V.valueAt(V.volumes.warped, {apply_affine(affine, place).tolist()})")
            assert told == pytest.approx(values[tuple(place)], rel=1e-6)
        page.press("5")  # swipe
        page.run("V.redraw()")
        assert page.run("V.state.picture") == "swipe"
        page.run("V.slide(0)")
        whole = page.run("V.left.drawn.toDataURL()")
        page.press(".")
        assert page.run("V.state.swipe") == pytest.approx(0.05) and page.run("V.left.drawn.toDataURL()") != whole
        assert page.complaints == []


@pytest.mark.slow
def test_the_command_ends_by_ctrl_c(result: Path) -> None:
    command = [sys.executable, "-m", "ncf", "view", str(result), "--browser=false"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of nohup inherits that it is ignored
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert next(line for line in lines if "view" in line).split()[1].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0 and error == ""


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for telling, call in {
        "cannot read .*gone": lambda: view(str(tmp_path / "gone")),
        "is no folder": lambda: view(str(tmp_path / "file")),
        "holds no result": lambda: view(str(tmp_path)).start(),
        "--browser is true or false": lambda: view(str(tmp_path), browser="perhaps"),
        "--fixed: there is no": lambda: view(str(tmp_path), fixed="gone.nii.gz"),
    }.items():
        with pytest.raises(SystemExit, match=f"^error: .*{telling}") as stop:
            call()
        assert "\n" not in str(stop.value.code)
