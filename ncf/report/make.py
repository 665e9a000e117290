"""The making of a report from the files of a result: the page and the pictures beside it, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ncf.core.drawing import load_matplotlib
from ncf.core.files import claim_folder, encoded, write_whole
from ncf.core.names import PICTURES, REPORT_FILE
from ncf.core.threads import beside
from ncf.report.error_bounds import scale_of
from ncf.report.findings import findings_of
from ncf.report.material import gathered
from ncf.report.page import page
from ncf.report.saved_findings import save_findings
from ncf.report.scene import scene
from ncf.report.slices import sliced
from ncf.result.folder import SavedResult


def make_report(folder: str | Path, inputs: Mapping[str, Path] | None = None) -> Path:
    """Make the report of a result.

    The page, its findings as JSON, and the PNG files in ``pictures`` go into the result's folder. Pictures of an
    earlier report are removed. The same files of a result give the same bytes.

    Args:
        folder: of the result.
        inputs: scans that have moved since, by the keys of `ncf.core.names.PAIR_KEYS`.

    Returns:
        The path of the page.

    Raises:
        PairError: the result is not complete, or a scan is not there.
    """
    result = SavedResult(Path(folder))
    paths = {**result.inputs, **(inputs or {})}
    with beside(gathered, result, inputs) as read:
        load_matplotlib()
        from ncf.report.figures import pictures

        material = read()
    with beside(scene, material) as shown:  # it takes as long as the pictures
        views = sliced(material)
        drawn = pictures(views, losses=result.run["losses"], errors_mm=material.errors_mm, bounds=scale_of(material))
        found = findings_of(material)
        volumes = shown()
    text = page(material, findings=found, plots=drawn, paths=paths, scene=volumes)
    there = claim_folder(result.folder / PICTURES)
    for old in there.glob("*.png"):
        old.unlink()
    for name, content in drawn.items():
        _save(there / name, content)
    save_findings(result.folder, found)
    _save(result.folder / REPORT_FILE, encoded(text))
    return result.folder / REPORT_FILE


def _save(path: Path, content: bytes) -> None:
    write_whole(path, lambda temporary: temporary.write_bytes(content))
