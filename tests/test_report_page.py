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

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from nibabel.affines import apply_affine
from PIL import Image

from ncf.cohort.index import make_index
from ncf.cohort.plan import Plan
from ncf.cohort.run import run_cohort
from ncf.cohort.worker import Resources
from ncf.commands.report import report
from ncf.core.files import save_json
from ncf.io.nifti import load_itk_field, save_itk_field
from ncf.io.pair_lists import checked
from ncf.io.trust_file import save_trust
from ncf.report.error_bounds import LIMITS
from ncf.report.make import make_report
from ncf.result.folder import SavedResult
from ncf.space.geometry import field_to_mm
from tests import stand_ins
from tests.browser import Browser, browser, found
from tests.conftest import ROOT

Run = Callable[..., ConfigWorkflow]
MOST_BYTES = 8_000_000
PICTURES = ("fixed", "warped", "before", "blend", "swipe", "difference", "checkerboard", "volume")
CELL = "document.querySelector('[data-name=\"%s\"]').textContent"


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
def page(chromium: Browser, result: Path) -> Browser:
    """The report, opened once: a test leaves the picture as it was."""
    chromium.open(result / "report.html", width=1366, height=768)
    return chromium


def settle(page: Browser, do: str) -> None:
    """Nothing; a script was run and the picture drawn again."""
    page.run(f"(async () => {{ {do}; await V.redraw(); }})()")


def pixels(uri: str) -> np.ndarray:
    """The pixels (rows, columns, 3) of a PNG in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), dtype=int)


def shown(page: Browser, side: str) -> str:
    """What stands on a panel, as a PNG in base64."""
    return page.run(f"(V.{side}.nv.drawScene(), document.getElementById('canvas-{side}').toDataURL())")


def test_it_opens_offline_without_a_complaint_and_needs_no_scrolling(page: Browser, result: Path) -> None:
    assert page.complaints == []
    own = (result / "report.html").resolve().as_uri()
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [own]
    assert (result / "report.html").stat().st_size < MOST_BYTES
    assert page.run("document.documentElement.scrollWidth <= 1366")
    assert page.run("document.getElementById('viewer').getBoundingClientRect().bottom <= 768")
    assert page.run("document.getElementById('status').textContent") == ""


def test_without_the_script_the_pictures_stand_open(result: Path) -> None:
    text = (result / "report.html").read_text(encoding="utf-8")
    stills = text[text.index('<details id="pictures" open>') :]
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', stills)
    assert len(shown) == 6 and "Without JavaScript" in text
    for still, name in zip(shown, ("views", "difference", "checkerboard", "contours", "jacobian", "grid"), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(still))), dtype=float)
        saved = np.asarray(Image.open(result / "pictures" / f"{name}.png"), dtype=float)
        assert np.corrcoef(pixels.ravel(), saved.ravel())[0, 1] > 0.95  # JPEG takes some


def test_the_numbers_at_the_crosshair_are_those_of_the_files(page: Browser, result: Path) -> None:
    saved = SavedResult(result)
    scans = {"fixed": nib.load(saved.inputs["fixed"]), "warped": nib.load(result / "warped.nii.gz")}
    labels = nib.load(saved.inputs["fixed_label"]).get_fdata()  # type: ignore[attr-defined]
    affine, shape = scans["fixed"].affine, scans["fixed"].shape  # type: ignore[attr-defined]
    values = {key: image.get_fdata() for key, image in scans.items()}  # type: ignore[attr-defined]
    field, _ = load_itk_field(result / "displacement.nii.gz")
    moved = field_to_mm(torch.from_numpy(field), affine).numpy()
    places = np.random.default_rng(7).integers(1, np.array(shape) - 1, (10, 3))
    for place in places:
        mm = apply_affine(affine, place)
        told = dict(page.run(f"V.reading({mm.tolist()})"))
        i, j, k = place
        assert float(told["fixed"].split()[0]) == pytest.approx(values["fixed"][i, j, k], abs=0.51)  # whole HU
        if told["warped"] != "no data":
            assert float(told["warped"].split()[0]) == pytest.approx(values["warped"][i, j, k], abs=0.51)
        u = moved[:, i, j, k]
        assert float(told["displacement"].split()[0]) == pytest.approx(float(np.linalg.norm(u)), abs=0.05)
        number = int(labels[i, j, k])
        assert told["label"] == (f"label {number}" if number else "none")
        letters = [pair[int(v >= 0)] for pair, v in zip(("LR", "PA", "IS"), mm + u, strict=True)]
        there = re.findall(r"([A-Z]) ([0-9.]+)", told["moving at"])
        assert [float(v) for _, v in there] == pytest.approx(np.abs(mm + u), abs=0.12)
        assert all(letter == own or abs(v) < 0.12 for (letter, _), own, v in zip(there, letters, mm + u, strict=True))
    page.run(f"V.go({mm.tolist()})")
    assert page.run(CELL % "fixed") == told["fixed"]
    assert page.run("Array.from(V.right.mm)") == pytest.approx(mm + u, abs=0.06)  # the other crosshair


def test_a_press_on_the_moving_scan_leads_back_through_the_map(page: Browser) -> None:
    page.run("V.go(V.scene.start_mm)")
    start, there = page.run("V.state.mm"), page.run("V.toMoving(V.state.mm)")
    page.run(f"V.go({[v + 9 for v in start]}); V.movedRight({there})")
    assert page.run("V.state.mm") == pytest.approx(start, abs=0.1)


def test_windows_are_the_usual_ones_and_change_the_picture(page: Browser) -> None:
    assert page.run("V.state.windows.fixed") == [-1350, 150]  # of a chest
    first = shown(page, "left")
    page.run("V.preset('soft tissue')")
    assert page.run("V.state.windows.fixed") == [-160, 240] == page.run("V.state.windows.warped")
    assert page.run("document.getElementById('window-told').textContent") == "W 400, L 40"
    assert "-160 HU" in page.run("document.getElementById('legend').textContent")
    assert shown(page, "left") != first
    page.run("V.preset('lung')")
    assert shown(page, "left") == first


def test_labels_are_shown_hidden_and_reached(page: Browser) -> None:
    first = shown(page, "left")
    settle(page, "document.getElementById('show-labels').click()")
    with_labels = shown(page, "left")
    settle(page, "document.getElementById('labels-none').click()")
    without = shown(page, "left")
    assert without == first  # a hidden label leaves no trace, and what is no label never has one
    away = np.abs(pixels(with_labels) - pixels(first)).max(axis=2)
    assert 0.02 < (away > 20).mean() < 0.5 and (away == 0).mean() > 0.4
    settle(page, "document.getElementById('labels-all').click()")
    assert shown(page, "left") == with_labels
    page.run("document.querySelector('#labels button').click()")
    assert page.run(CELL % "label") == page.run("document.querySelector('#labels button').textContent")
    settle(page, "document.getElementById('show-labels').click(); V.go(V.scene.start_mm)")


def test_the_worst_landmark_is_first_and_reached(page: Browser, result: Path) -> None:
    worst = json.loads((result / "metrics.json").read_text())["tre_mm"]["after"]["max"]
    button = "document.querySelector('[data-landmark]')"
    assert "(worst)" in page.run(f"{button}.textContent")
    assert float(page.run(f"{button}.closest('tr').lastElementChild.textContent")) == pytest.approx(worst, abs=0.006)
    page.run(f"{button}.click()")
    assert page.run("V.state.mm") == pytest.approx(page.run("V.scene.landmarks[0].fixed_mm"))


@pytest.mark.slow
def test_every_picture_differs_and_every_key_works(page: Browser) -> None:
    told = set()
    for number, name in enumerate(PICTURES, start=1):
        page.press(str(number))
        page.run("V.redraw()")
        assert page.run("document.querySelector('[name=picture]:checked').value") == name
        told |= {seen(page).tobytes(), page.run("document.getElementById('legend').textContent")}
    assert len(told) == 2 * len(PICTURES)
    for key, state in (
        ("b", "V.state.second"),
        ("g", "V.state.motion"),
        ("f", "V.state.picture"),
        ("r", "V.state.ruler"),
    ):
        before = page.run(state)
        page.press(key)
        page.run("V.redraw()")
        assert page.run(state) != before, key
    for key, axis in (("ArrowRight", 0), ("PageUp", 2)):
        before = page.run("V.state.mm")
        page.press(key)
        assert abs(page.run("V.state.mm")[axis] - before[axis]) == pytest.approx(page.run("V.scene.step_mm")[axis])
    place = "Array.from(V.%s.nv.frac2canvasPos(V.%s.nv.mm2frac(V.%s.mm)))"
    at = [page.run(place % ((side,) * 3)) for side in ("left", "right")]
    before = shown(page, "left")
    page.press("+")
    page.press("+")
    assert shown(page, "left") != before  # larger, and the crosshair is where it was
    assert [page.run(place % ((side,) * 3)) for side in ("left", "right")] == [pytest.approx(xy, abs=1) for xy in at]
    page.press("0")
    assert shown(page, "left") == before and page.complaints == []


@pytest.mark.slow
def seen(page: Browser) -> np.ndarray:
    """The pixels of the left panel with what is drawn over it, (rows, columns, 3)."""
    both = "(() => { const b = document.createElement('canvas'), of = V.left.canvas; b.width = of.width; "
    both += "b.height = of.height; const c = b.getContext('2d'); V.left.nv.drawScene(); c.drawImage(of, 0, 0); "
    return pixels(page.run(both + "c.drawImage(V.left.drawn, 0, 0); return b.toDataURL(); })()"))


@pytest.mark.slow
def test_swipe_shows_fixed_beside_warped_and_the_divider_moves(page: Browser) -> None:
    settle(
        page, "V.zoom(0); V.ruler(false); V.go(V.scene.start_mm); V.state.landmarks = false; V.choose('motion', 'none')"
    )
    settle(page, "V.choose('picture', 'fixed')")
    fixed = seen(page)
    settle(page, "V.choose('picture', 'warped')")
    warped = seen(page)
    settle(page, "V.choose('picture', 'swipe'); V.slide(0.3)")
    tiles = page.run("V.left.nv.screenSlices.map((t) => Array.from(t.leftTopWidthHeight))")
    assert len(tiles) == 3 and page.run("document.getElementById('blend').value") == "30"
    assert page.run("document.getElementById('blend-told').textContent") == "Swipe"

    def check(share: float) -> None:
        both = seen(page)
        for tile in tiles:
            at, (left, top, width, height) = round(tile[0] + share * tile[2]), map(int, tile)
            rows = slice(top + 2, top + height - 44)  # its name stands below
            for part, own, other in (
                (slice(left + 2, at - 6), fixed, warped),
                (slice(at + 6, left + width - 2), warped, fixed),
            ):
                apart = [np.abs(both[rows, part] - image[rows, part]).mean() for image in (own, other)]
                assert apart[0] < 0.3 and apart[1] > 1, (share, apart)
            assert both[top + height // 3, at - 2 : at + 2].min(axis=1).max() > 250  # the line

    check(0.3)
    page.press(".")
    page.press(".")
    check(0.4)
    page.press(",")
    box = page.run("(() => { const b = V.left.canvas.getBoundingClientRect(); return [b.left, b.top]; })()")
    left, top, width, height = tiles[0]
    y, before = box[1] + top + 0.3 * height, page.run("V.state.mm")
    page.drag((box[0] + left + 0.35 * width, y), (box[0] + left + 0.75 * width, y))
    assert page.run("V.state.swipe") == pytest.approx(0.75, abs=0.01) and page.run("V.state.mm") == before
    check(page.run("V.state.swipe"))
    page.drag((box[0] + left + 0.2 * width, y), (box[0] + left + 0.25 * width, y))  # elsewhere the crosshair follows
    assert page.run("V.state.mm") != before and page.run("V.state.swipe") == pytest.approx(0.75, abs=0.01)
    page.run("V.slide(7)")
    assert page.run("V.state.swipe") == 1
    settle(page, "V.slide(0.5); V.choose('picture', 'blend')")
    page.press(".")
    assert page.run("[V.state.blend, V.state.swipe]") == pytest.approx([0.55, 0.5])
    settle(page, "V.state.blend = 0.5; V.state.landmarks = true; V.choose('picture', 'warped')")
    assert page.complaints == []


@pytest.mark.slow
def test_labels_are_outlines_in_a_swipe(page: Browser) -> None:
    settle(page, "V.state.landmarks = false; V.go(V.scene.labels[0].at_mm); V.choose('picture', 'swipe'); V.slide(0.5)")
    without = seen(page)
    settle(page, "V.state.labels = true")
    lines = np.abs(seen(page) - without).max(axis=2) > 40
    assert 0.001 < lines.mean() < 0.1
    settle(page, "V.state.labels = false; V.state.landmarks = true; V.choose('picture', 'warped')")


@pytest.mark.slow
def test_inner_and_outer_outlines_are_drawn_and_the_largest_bound_is_reached(
    chromium: Browser, result: Path, tmp_path: Path
) -> None:
    bounded = shutil.copytree(result, tmp_path / "bounded")
    grid = SavedResult(bounded).grid("fixed")
    save_trust(bounded / "trust.nii.gz", np.full((*grid.shape, 2), 12.0, np.float32), grid.affine)
    at = apply_affine(grid.affine, np.array(grid.shape) // 3).tolist()
    told = {"median_mm": 11.0, "p95_mm": 12.0, "large_share": 0.0}
    numbers = {"everywhere": told, "body": told, "structures": {"1": {"large_share": 0.5}}}
    numbers |= {"largest": {"bound_mm": 12.0, "at_mm": at}}
    (bounded / "trust.json").write_text(json.dumps(numbers), encoding="utf-8")
    make_report(bounded)
    chromium.open(bounded / "report.html", width=1366, height=768)
    assert chromium.complaints == []
    assert chromium.run("document.getElementById('viewer').getBoundingClientRect().bottom <= 768")
    assert "The largest one, 12.0 mm, is at" in chromium.run("document.getElementById('findings').textContent")
    chromium.run("document.getElementById('doubt').click()")
    chromium.run("V.redraw()")
    assert chromium.run("V.state.mm") == pytest.approx(at) and chromium.run("V.state.picture") == "trust"
    assert chromium.run(CELL % "error bound") == "12.0 mm (95 %, estimate)"
    legend = chromium.run("document.getElementById('legend').textContent")
    assert "an estimate that single errors exceed" in legend and "≥ 10 mm" in legend
    rows = chromium.run("Array.from(document.querySelectorAll('#numbers tr'), (row) => row.textContent)")
    assert "bound of the error (95 %) in the body, median-11.00 mm" in rows
    assert rows[-1] == "largest bound of the error (95 %) in the body-12.00 mm"
    assert LIMITS in chromium.run("document.getElementById('numbers').textContent")
    stills = chromium.run("Array.from(document.querySelectorAll('.six strong'), (title) => title.textContent)")
    assert stills[-2:] == ["Jacobian determinant.", "Trust."] and len(stills) == 6
    picture = np.asarray(Image.open(bounded / "pictures" / "trust.png").convert("RGB"), dtype=int)
    assert (np.abs(picture - (253, 231, 37)).max(axis=2) < 90).mean() > 0.2  # all of it is 12 mm: yellow
    label = chromium.run("V.scene.labels[0]")
    count = f"(name) => Array.from(V.volumes[name].values).filter((v) => v === {label['value']}).length"
    inner, carried, outer = (
        chromium.run(f"({count})('{n}')") for n in ("warped_inner", "warped_label", "warped_outer")
    )
    assert inner < carried < outer
    settle(chromium, f"V.state.landmarks = false; V.go({label['at_mm']}); V.choose('picture', 'warped')")
    without = seen(chromium)
    chromium.press("i")
    chromium.run("V.redraw()")
    assert 0.001 < (np.abs(seen(chromium) - without).max(axis=2) > 40).mean() < 0.1
    assert chromium.complaints == []


@pytest.mark.slow
def test_the_ruler_measures_millimetres(page: Browser) -> None:
    page.run("V.zoom(0); V.go(V.scene.start_mm); V.ruler(true)")
    box = page.run("(() => { const b = V.left.canvas.getBoundingClientRect(); return [b.left, b.top]; })()")
    left, top, width, height = page.run("Array.from(V.left.nv.screenSlices[0].leftTopWidthHeight)")
    ends = [(left + 0.2 * width, top + 0.5 * height), (left + 0.7 * width, top + 0.5 * height)]
    page.drag(*[(box[0] + x, box[1] + y) for x, y in ends])
    mm = [page.run(f"Array.from(V.left.nv.screenXY2mm({x}, {y}))")[:3] for x, y in ends]
    told = page.run("V.left.nv.document.completedMeasurements.map((m) => m.distance)")
    assert told == [pytest.approx(float(np.linalg.norm(np.subtract(*mm))), rel=0.03)]
    page.run("V.ruler(false)")
    assert page.run("V.left.nv.document.completedMeasurements.length") == 0


@pytest.mark.slow
def test_a_fold_is_reached_and_yellow(chromium: Browser, result: Path, tmp_path: Path) -> None:
    folded = shutil.copytree(result, tmp_path / "folded")
    field, affine = load_itk_field(folded / "displacement.nii.gz")
    place = np.array(field.shape[1:]) // 2
    field[:, place[0], place[1], place[2]] += np.array([-4.0, 0, 0])  # a neighbour is overtaken
    save_itk_field(folded / "displacement.nii.gz", field, affine)
    make_report(folded)
    chromium.open(folded / "report.html", width=1366, height=768)
    chromium.run("document.getElementById('fold').click()")
    chromium.run("V.redraw()")
    assert float(chromium.run(CELL % "Jacobian")) <= 0
    chromium.run("document.getElementById('cross').click()")
    seen = pixels(shown(chromium, "left"))
    assert ((seen[..., 0] > 150) & (seen[..., 1] > 120) & (seen[..., 2] < 70)).any()
    assert np.abs(np.subtract(chromium.run("V.state.mm"), apply_affine(affine, place))).max() <= 14.01  # a neighbour


@pytest.mark.slow
def test_without_webgl_it_says_so_and_shows_the_pictures(chromium: Browser, result: Path) -> None:
    without = "HTMLCanvasElement.prototype.getContext = () => null"
    told = chromium.send("Page.addScriptToEvaluateOnNewDocument", source=without)
    chromium.open(result / "report.html")
    chromium.send("Page.removeScriptToEvaluateOnNewDocument", identifier=told["identifier"])
    assert "no WebGL2" in chromium.run("document.getElementById('no-viewer').textContent")
    assert chromium.run("document.querySelector('.six img').getBoundingClientRect().width") > 100
    assert chromium.complaints == []


@pytest.mark.slow
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
    assert len(pages) == 2
    for word in (
        "Numbers",
        "before",
        "after",
        "correlation",
        "mutual",
        "folded",
        "displacement,",
        "Command",
        "Jacobian",
    ):
        assert word in found and min(found[word]) > 200, (word, found.get(word))  # the paper's white around the letters
    assert max(float((page < 40).mean()) for page in pages) < 0.35  # of a page: the pictures, and no empty frame


@pytest.mark.slow
def test_a_narrow_screen_needs_no_scrolling_sideways(chromium: Browser, result: Path) -> None:
    chromium.open(result / "report.html", width=400, dark=True)
    assert chromium.run("document.documentElement.scrollWidth <= 400") and chromium.complaints == []
    edges = chromium.run(
        "[...document.querySelectorAll('#tg132 *, .made *')].map((e) => e.getBoundingClientRect().right)"
    )
    assert len(edges) > 20 and max(edges) <= 400


@pytest.fixture
def brain(result: Path, tmp_path: Path) -> Path:
    """The result with the rows of 45 labels, of which every other one fails."""
    folder = shutil.copytree(result, tmp_path / "brain")
    told = SavedResult(folder).tg132
    assert told is not None
    own = [row for row in told["rows"] if row["structure"] == "label 1"]
    assert len(own) == 3
    many = [{**row, "structure": f"label {n}"} for row in own for n in range(1, 46)]
    for row in many[::2]:
        row["result"] = "fail"
    rows = [*many, *(row for row in told["rows"] if row["structure"] is None)]
    counts = {word: sum(row["result"].replace(" ", "_") == word for row in rows) for word in told["counts"]}
    save_json(folder / "tg132.json", {**told, "rows": rows, "counts": counts})
    make_report(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext of poppler-utils to read a print with")
def test_many_rows_of_tg132_fill_neither_the_page_nor_the_print(chromium: Browser, brain: Path) -> None:
    chromium.open(brain / "report.html", width=1366, height=768)
    assert chromium.run("document.getElementById('tg132').getBoundingClientRect().height") < 600
    assert chromium.run("document.querySelectorAll('#tg132 details tbody tr').length") == 137
    assert "TG-132: 68 of 137 fail." in chromium.run("document.querySelector('header').textContent")
    assert chromium.run("document.getElementById('viewer').getBoundingClientRect().bottom <= 768")
    chromium.print_to(brain / "page.pdf")
    subprocess.run(["pdftotext", "-layout", "page.pdf", "page.txt"], cwd=brain, check=True)
    pages = (brain / "page.txt").read_text(encoding="utf-8").strip("\f\n").split("\f")
    assert len(pages) == 2
    assert all(
        word in pages[0] for word in ("Dice similarity", "Consistency", "68 fail", "How it was made", "137 rows")
    )


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
    chromium.wait("document.body?.dataset.ready === 'true' && document.querySelectorAll('canvas').length === 4")


@pytest.fixture
def many(result: Path, tmp_path: Path) -> Path:
    """Six results of a cohort, the last of which lies far out."""
    errors = [1.0, 1.1, 1.2, 1.1, 1.0, 9.0]
    for number, error in enumerate(errors):
        shutil.copytree(result, tmp_path / f"p{number}", ignore=shutil.ignore_patterns("*.nii.gz", "*.pt"))
        told = json.loads((tmp_path / f"p{number}" / "metrics.json").read_text())
        told["tre_mm"]["after"]["mean"] = error
        (tmp_path / f"p{number}" / "metrics.json").write_text(json.dumps(told))
    plan = {"settings": {}, "pairs": [{"name": f"p{n}"} for n in range(len(errors))]}
    (tmp_path / "cohort.json").write_text(json.dumps(plan))
    return tmp_path


def test_the_index_names_what_lies_far_out_and_shows_thumbnails(many: Path) -> None:
    text = make_index(many).read_text(encoding="utf-8")
    far = text[text.index('id="far-title"') : text.index('id="pairs-title"')]
    assert '<a href="p5/report.html">p5</a> (9)' in far and far.count("<a ") == 1
    assert text.count('class="thumbnail" src="data:image/jpeg;base64,') == 6


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext of poppler-utils to read a print with")
def test_the_index_lies_within_the_window_and_the_paper(chromium: Browser, many: Path) -> None:
    chromium.open(make_index(many), width=1366)
    assert chromium.run("[...document.querySelectorAll('.scroll')].every((e) => e.scrollWidth <= e.clientWidth)")
    chromium.print_to(many / "index.pdf")
    subprocess.run(["pdftotext", "-bbox", "index.pdf", "words.xml"], cwd=many, check=True)
    told = (many / "words.xml").read_text(encoding="utf-8")
    width = float(re.findall(r'<page width="(.+?)"', told)[0])
    edges = {word: float(right) for right, word in re.findall(r'xMax="(.+?)" yMax=".+?">(.+?)</word>', told)}
    assert {"verdict", "correlation", "SDlogJ", "s"} <= set(edges)
    assert max(edges.values()) < width - 20  # points of the margin


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
