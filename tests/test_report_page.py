"""The pages in a headless Chromium: no complaints, nothing loaded, every control does something."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from ncf.cohort.index import make_index
from ncf.cohort.plan import Plan
from ncf.cohort.run import run_cohort
from ncf.cohort.worker import Resources
from ncf.commands.report import report
from ncf.core.files import save_json
from ncf.io.pair_lists import checked
from ncf.report.make import make_report
from ncf.report.material import gathered
from ncf.report.slices import Slices, sliced
from ncf.result.folder import SavedResult
from tests import stand_ins
from tests.browser import Browser, browser, found
from tests.conftest import ROOT

Run = Callable[..., ConfigWorkflow]
ALIKE = 0.93  # correlation of what is on the screen with its slice: JPEG, scaling and the letters take some
PICTURES = ("fixed", "moving", "difference", "checkerboard", "contours", "grid", "volume")
MOST_BYTES = 5_000_000
# what stands on the screen of a view at the middle of each of its pixels, as grey
SHOWN = """(() => {
  const canvas = document.querySelector('#view-%s canvas'), context = canvas.getContext('2d'), values = [];
  const all = context.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let r = 0; r < %d; r++) for (let c = 0; c < %d; c++) {
    const x = Math.floor((c + 0.5) * canvas.width / %d), y = Math.floor((r + 0.5) * canvas.height / %d);
    values.push(all[4 * (y * canvas.width + x)]);
  }
  return values;
})()"""
ALL = "Array.from(document.querySelectorAll('canvas')).map((c) => c.toDataURL())"


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = found()
    if program is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def result(run: Run, pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished registration with its report."""
    state = run(tmp_path_factory.mktemp("page"), pair, name="chest").evaluator.state
    folder = Path(state.output["result_dir"])
    make_report(folder)
    return folder


@pytest.fixture(scope="module")
def views(result: Path) -> list[Slices]:
    return sliced(gathered(SavedResult(result)))


@pytest.fixture
def page(chromium: Browser, result: Path) -> Browser:
    """The report, freshly opened."""
    chromium.open(result / "report.html")
    return chromium


def best(page: Browser, view: Slices) -> tuple[str, int]:
    """The scan and the number of the slice that is most like what stands on the screen of a view."""
    rows, columns = view.cut.shape[1:]
    shown = page.run(SHOWN % (view.cut.view.name, rows, columns, columns, rows))
    every = [(name, number) for name in ("fixed", "before", "after") for number in range(view.cut.shape[0])]
    stacks = np.array([view.stacks[name][number].ravel() for name, number in every], dtype=float)
    varied = stacks.std(axis=1) > 0
    like = np.where(
        varied, [np.corrcoef(shown, pixels)[0, 1] if v else 0 for pixels, v in zip(stacks, varied, strict=True)], 0
    )
    assert like.max() > ALIKE
    return every[int(like.argmax())]


def pictures(page: Browser) -> list[str]:
    return page.run(ALL)


def test_it_opens_offline_without_a_complaint(page: Browser, result: Path) -> None:
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [
        (result / "report.html").resolve().as_uri()
    ]
    assert (result / "report.html").stat().st_size < MOST_BYTES
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_without_the_script_it_shows_a_slice_of_each_view(result: Path, views: list[Slices]) -> None:
    text = (result / "report.html").read_text(encoding="utf-8")
    stills = re.findall(r'<img class="still" src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(stills) == len(views)
    for still, view in zip(stills, views, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(still))), dtype=float)
        assert np.corrcoef(shown.ravel(), view.only("after", view.start).ravel())[0, 1] > ALIKE


def test_it_shows_the_slices_that_it_names(page: Browser, views: list[Slices]) -> None:
    page.run("document.getElementById('cross').click()")
    for name, picture, when in (
        ("fixed", "fixed", "after"),
        ("before", "moving", "before"),
        ("after", "moving", "after"),
    ):
        page.run(f"document.querySelector('[name=picture][value={picture}]').click()")
        page.run(f"document.querySelector('[name=when][value={when}]').click()")
        for view in views:
            assert best(page, view) == (name, view.start)
    view = views[0]
    for number in (6, view.cut.shape[0] - 7):
        slider = "document.querySelector('#view-axial input')"
        page.run(f"{slider}.value = {number}; {slider}.dispatchEvent(new Event('input'))")
        assert best(page, view) == ("after", number)
        told = page.run(f"{slider}.getAttribute('aria-valuetext')")
        assert told == f"slice {number + 1} of {view.cut.shape[0]}, S {view.positions_mm[number]:g} mm"


def test_every_picture_differs_and_the_switch_changes_it(page: Browser) -> None:
    seen = set()
    for number, name in enumerate(PICTURES, start=1):
        page.press(str(number))
        assert page.run("document.querySelector('[name=picture]:checked').value") == name
        after = pictures(page)
        legend = page.run("document.getElementById('legend').textContent")
        assert not seen & {*after, legend}
        seen |= {*after, legend}
        page.press("b")
        changed = pictures(page) != after
        assert changed == (name not in ("fixed", "volume")), name
        page.press("b")
    assert page.complaints == []


def test_it_can_be_used_by_keyboard_alone(page: Browser, views: list[Slices]) -> None:
    reached = []
    for _ in range(12):
        page.press("Tab")
        reached.append(
            page.run("document.activeElement.name || document.activeElement.getAttribute('aria-label') || ''")
        )
        if reached[-1] == "coronal slice":
            break
    assert (
        reached.index("picture") < reached.index("when") < reached.index("axial slice") < reached.index("coronal slice")
    )
    before = pictures(page)
    page.press("ArrowRight")
    assert page.run("document.querySelector('#view-coronal input').value") == str(views[1].start + 1)
    after = pictures(page)
    assert after[1] != before[1]
    told = page.run("document.querySelector('#view-coronal canvas').getAttribute('aria-label')")
    assert told.startswith(f"coronal view, slice {views[1].start + 2} of ") and "after registration" in told


def test_everything_to_operate_and_every_picture_has_a_name(page: Browser) -> None:
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    page.send("Accessibility.disable")
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert len(roles["slider"]) == 5 and len(roles["radio"]) == len(PICTURES) + 2 and len(roles["image"]) == 5
    for role in ("slider", "radio", "image", "button", "checkbox", "heading", "link"):
        assert all(roles[role]), (role, roles[role])
    assert page.run("document.documentElement.lang") == "en"


def test_a_press_on_a_picture_brings_the_others_there(page: Browser, views: list[Slices]) -> None:
    box = page.run("(() => { const b = document.querySelector('#view-axial canvas').getBoundingClientRect();"
                   " return [b.left, b.top, b.width, b.height]; })()")  # fmt: skip
    page.click(box[0] + 0.25 * box[2], box[1] + 0.75 * box[3])
    coronal, sagittal = (
        int(page.run(f"document.querySelector('#view-{n} input').value")) for n in ("coronal", "sagittal")
    )
    assert abs(coronal / views[1].cut.shape[0] - 0.75) < 0.05 and abs(sagittal / views[2].cut.shape[0] - 0.25) < 0.05
    assert page.run("document.querySelector('#view-axial input').value") == str(views[0].start)


@pytest.mark.skipif(not shutil.which("pdftoppm"), reason="no pdftoppm of poppler-utils to look at a print with")
@pytest.mark.parametrize("dark", [False, True])
def test_in_print_nothing_lies_over_the_numbers(chromium: Browser, result: Path, tmp_path: Path, dark: bool) -> None:
    chromium.open(result / "report.html", dark=dark)
    chromium.print_to(tmp_path / "page.pdf")
    subprocess.run(["pdftoppm", "-r", "72", "-png", "page.pdf", "page"], cwd=tmp_path, check=True)
    subprocess.run(["pdftotext", "-bbox", "page.pdf", "words.xml"], cwd=tmp_path, check=True)
    pages = [np.asarray(Image.open(path).convert("L")) for path in sorted(tmp_path.glob("page-*.png"))]
    told = re.split("<page ", (tmp_path / "words.xml").read_text(encoding="utf-8"))[1:]
    words = re.compile(r'<word xMin="(.+?)" yMin="(.+?)" xMax="(.+?)" yMax="(.+?)">(.+?)</word>')
    found: dict[str, list[float]] = {}
    for page, text in zip(pages, told, strict=True):
        for *box, word in words.findall(text):
            left, top, right, bottom = (round(float(edge)) for edge in box)
            found.setdefault(word, []).append(float(np.median(page[top:bottom, left:right])))
    for word in ("Numbers", "before", "after", "correlation", "mutual", "folded", "displacement,", "Command"):
        assert word in found and min(found[word]) > 200, (word, found.get(word))  # the paper's white around the letters
    black = max(float((page < 40).mean()) for page in pages)
    assert black < 0.35  # of a page: the pictures, and no empty frame


def test_a_narrow_screen_needs_no_scrolling_sideways(chromium: Browser, result: Path) -> None:
    chromium.open(result / "report.html", width=400, dark=True)
    assert chromium.run("document.documentElement.scrollWidth <= 400") and chromium.complaints == []


# --- a cohort --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(result: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Four pairs of text files for stand-ins, one of which fails, for a reason that HTML would take for its own."""
    folder = tmp_path_factory.mktemp("texts")
    rows = []
    for name in ("10", "9", "bad", "other"):
        row = {key: str(folder / f"{key}_{len(rows)}.nii.gz") for key in ("fixed", "moving")}
        for path in row.values():
            Path(path).write_text(path)
        rows.append({"name": name, **row})
    plan = Plan(
        checked(rows, where="list"), (str(ROOT / "configs" / "presets" / "fast.json"),), tmp_path_factory.mktemp("many")
    )
    assert not run_cohort(plan, resources=Resources(1, 1), progress=False, call=stand_ins.refuse_some)
    failure = plan.folder(plan.pairs[2]) / "failure.json"
    save_json(failure, {**json.loads(failure.read_text()), "reason": "<i>no good</i>"})
    shutil.copyfile(result / "report.html", plan.folder(plan.pairs[-1]) / "report.html")
    findings = {"findings": [{"level": "warning", "text": "It <b>folds</b>."}, {"level": "note", "text": "a remark"}]}
    save_json(plan.folder(plan.pairs[-1]) / "findings.json", findings)
    save_json(plan.folder(plan.pairs[0]) / "findings.json", findings)  # made with --report=false
    make_index(plan.output_dir)
    return plan


def test_the_index_lists_sorts_and_links(chromium: Browser, cohort: Plan) -> None:
    index = cohort.output_dir / "index.html"
    chromium.open(index)
    assert chromium.complaints == [] and [u for u in chromium.requests if not u.startswith("data:")] == [index.as_uri()]
    column = "Array.from(document.querySelectorAll('#pairs tbody tr')).map((r) => r.cells[%d].dataset.value)"
    names = chromium.run(column % 0)
    assert len(names) == 3 and not any("bad" in name for name in names)
    for _, reverse in (("up", False), ("down", True)):
        chromium.run("document.querySelectorAll('#pairs th button')[1].click()")
        errors = [float(value) for value in chromium.run(column % 1)]
        assert errors == sorted(errors, reverse=reverse) and len(set(errors)) > 1
    assert chromium.run("document.querySelectorAll('#pairs th')[1].getAttribute('aria-sort')") == "descending"
    assert "no good" in chromium.run("document.querySelector('.findings').textContent")
    warned = chromium.run(
        "Array.from(document.querySelectorAll('[aria-labelledby=warnings-title] li')).map((e) => e.textContent)"
    )
    assert warned == ["10. It <b>folds</b>.", "other. It <b>folds</b>."]  # with a report or without
    assert chromium.run("document.querySelectorAll('#pairs a').length") == 1
    chromium.run("document.querySelector('#pairs a').click()")
    chromium.wait("document.body?.dataset.ready === 'true' && document.querySelectorAll('canvas').length === 3")


def test_the_index_is_made_of_files_alone_and_is_the_same_again(cohort: Plan) -> None:
    index = cohort.output_dir / "index.html"
    first = index.read_bytes()
    index.unlink()
    assert make_index(cohort.output_dir) == index and index.read_bytes() == first
    text = first.decode()
    assert (
        "&lt;i&gt;no good" in text and "<i>" not in text and "data:image/png;base64," in text and "failures.csv" in text
    )


def test_a_missing_report_is_said_and_told_by_the_status(
    cohort: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(cohort.pairs[:2], cohort.config_files, tmp_path / "out")
    assert not run_cohort(plan, resources=Resources(1, 1), progress=False, call=stand_ins.draw_nothing)
    out = capsys.readouterr().out
    assert "no report: 9: no ink" in out and "2 of 2 pairs done" in out
    assert (plan.output_dir / "index.html").exists() and "(no report)" in (plan.output_dir / "index.html").read_text()
    quiet = Plan(cohort.pairs[:2], cohort.config_files, tmp_path / "quiet", {"report": False})
    assert run_cohort(quiet, resources=Resources(1, 1), progress=False, call=stand_ins.finish)
    assert not (quiet.output_dir / "index.html").exists()
    assert "report" not in json.loads((quiet.output_dir / "cohort.json").read_text())["settings"]
    loud = Plan(cohort.pairs[:2], cohort.config_files, tmp_path / "quiet", {"report": True})
    # not other settings, and a worker that makes no reports has nothing left to do
    assert run_cohort(loud, resources=Resources(1, 1), progress=False, call=stand_ins.finish)


def test_the_command_makes_every_report_and_the_index_again(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("one", "two"):
        shutil.copytree(result, tmp_path / name, ignore=shutil.ignore_patterns("*.html", "pictures"))
    report(str(tmp_path)).start()
    assert (
        all((tmp_path / name / "report.html").exists() for name in ("one", "two"))
        and not (tmp_path / "index.html").exists()
    )
    (tmp_path / "cohort.json").write_text(json.dumps({"settings": {}, "pairs": [{"name": "one"}, {"name": "two"}]}))
    report(str(tmp_path)).start()
    assert "index " in capsys.readouterr().out and (tmp_path / "index.html").exists()
