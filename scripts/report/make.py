"""A report from the files of a result: the page and the pictures beside it, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from scripts.files import claim_folder, save_json, write_whole
from scripts.names import CONCERNS_FILE, PICTURES, REPORT_FILE
from scripts.report.concerns import concerns
from scripts.report.figures import pictures
from scripts.report.material import gathered
from scripts.report.page import page
from scripts.report.slices import sliced
from scripts.saved import SavedResult


def make_report(folder: str | Path, inputs: Mapping[str, Path] | None = None) -> Path:
    """The path of the page; it, its concerns as JSON and the PNG files in ``pictures`` go into the result's folder.

    The same files of a result give the same bytes. Pictures of an earlier report go. ``inputs`` name scans that have moved
    since, by the keys of `names.PAIR_KEYS`. PairError for a result that is not complete, or a scan that is not there.
    """
    result = SavedResult(Path(folder))
    paths = {**result.inputs, **(inputs or {})}
    material = gathered(result, inputs)
    views = sliced(material)
    drawn = pictures(views, losses=result.run["losses"], errors_mm=material.errors_mm)
    worries = concerns(material)
    text = page(material, views, worries=worries, plots=drawn, paths=paths)
    beside = claim_folder(result.folder / PICTURES)
    for old in beside.glob("*.png"):
        old.unlink()
    for name, content in drawn.items():
        _save(beside / name, content)
    save_json(result.folder / CONCERNS_FILE, {"concerns": [asdict(concern) for concern in worries]})
    _save(result.folder / REPORT_FILE, text.encode())
    return result.folder / REPORT_FILE


def _save(path: Path, content: bytes) -> None:
    write_whole(path, lambda temporary: temporary.write_bytes(content))
