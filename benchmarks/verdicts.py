"""Whether the verdict can be trusted: right, disturbed and wrong pairs, and the word that each of them gets.

``python -m benchmarks.verdicts [--kinds NAME,NAME] [--output_dir FOLDER]``

OUTPUT_DIR holds verdicts.jsonl, a line for each pair, and table.md. Pairs that are done there are not run again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from benchmarks.disturb import PERCENTILES, Scans, placed, read_scans, recoloured, write_scans
from benchmarks.options import chosen, words
from benchmarks.ours import command
from benchmarks.pairs import DATA, PAIRS, Pair
from benchmarks.processes import measured
from ncf.evaluate.tables import markdown

LINES, TABLE = "verdicts.jsonl", "table.md"
WORDS = ("good", "doubtful", "refused")
DISTURBED = ("lung_ct_real", "lung_ct_semi_a", "liver_mr_d23", "brain_mr", "head_neck_34_54", "head_neck_60_109")
RECOLOURED = ("lung_ct_real", "lung_ct_semi_a", "liver_mr_d23", "brain_mr", "head_neck_34_54")
BLUR_VOXELS = 2.0
ORGANS = {
    "lung": "lung_ct_real/fixed",
    "brain": "brain_mr/fixed",
    "head": "head_neck_ct/pt_34_ct",
    "liver": "liver_mr/d18/fixed",
    "limb CT": "limb_ct_mr/022/ct",
    "limb MR": "limb_ct_mr/004/mr",
    "limb PET": "limb_ct_mr/004/pet",
}
SAME_LIMB = {"limb MR", "limb PET"}  # of one person: not wrong
MASKS = (
    ("lung_ct_real/fixed", "lung_ct_real/moving_lungmask"),
    ("lung_ct_real/fixed_lungmask", "lung_ct_real/moving"),
    ("brain_mr/fixed", "brain_mr/moving_seg"),
    ("brain_mr/fixed_seg", "brain_mr/moving"),
    ("head_neck_ct/pt_34_ct", "head_neck_ct/pt_54_seg"),
    ("limb_ct_mr/022/ct", "limb_ct_mr/022/mr_gtv"),
)
REGIONS = ((34, 54), (60, 109), (54, 60))  # of head_neck_ct: the lower half of one, the upper half of the other
LOWER, UPPER = slice(0, 0.45), slice(0.55, 1)

Files = Mapping[str, Path]


@dataclass(frozen=True)
class Case:
    """One registration.

    Attributes:
        kind: a row of the table.
        name: in verdicts.jsonl.
        files: makes or names the files, given a folder of its own.
        align_centres: True for scans that have nothing to do with one another.
    """

    kind: str
    name: str
    files: Callable[[Path], Files]
    align_centres: bool = False


def main(kinds: str = "", *, threads: int = 2, output_dir: str | None = None) -> None:
    """Print the table and write it.

    Args:
        kinds: rows of the table; by default all.
        threads: that a registration may use.
        output_dir: by default a new one in the temporary folder.
    """
    by_kind: dict[str, list[Case]] = {}
    for case in cases():
        by_kind.setdefault(case.kind, []).append(case)
    wanted = chosen(by_kind, words(kinds) or list(by_kind), what="kind")
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-verdicts-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    done = {(line["kind"], line["name"]) for line in _lines(folder)}
    left = [case for some in wanted for case in some if (case.kind, case.name) not in done]
    for case in tqdm(left, disable=None):
        line = {"kind": case.kind, "name": case.name, **verdict_of(case, folder / "case", threads=threads)}
        with (folder / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    table = verdict_table(_lines(folder))
    (folder / TABLE).write_text(table + "\n", encoding="utf-8")
    print(f"{table}\n\nresults in {folder}")


def _lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines that are there."""
    file = folder / LINES
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def verdict_table(lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a row for each kind, how many pairs got each word."""
    counts = {kind: Counter(line["word"] for line in lines if line["kind"] == kind) for kind in _kinds(lines)}
    rows = [
        [f"{kind} ({sum(count.values())})", *(str(count[word]) for word in WORDS)] for kind, count in counts.items()
    ]
    return markdown([["pairs", *WORDS], *rows])


def _kinds(lines: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["kind"] for line in lines))


def verdict_of(case: Case, place: Path, *, threads: int) -> dict[str, Any]:
    """Register the pair of a case and return its verdict; ``refused`` where the command ends with an error."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    pair = Pair(case.kind, dict(case.files(place)), align_centres=case.align_centres)
    ended = measured(
        command(pair, preset="default", seed=0, output_dir=place, name="case"), log=place / "log", threads=threads
    )
    metrics = place / "case" / "metrics.json"
    found = {"word": "refused", "reasons": [ended.last_line]}
    if ended.status == 0:
        found = json.loads(metrics.read_text(encoding="utf-8"))["verdict"]
    shutil.rmtree(place)
    return found


def cases() -> Iterator[Case]:
    """Yield all cases: the pairs of `benchmarks.pairs`, limbs, and what can be made of them."""
    pairs = {pair.name: pair for pair in PAIRS if pair.files}
    for pair in pairs.values():
        yield Case("right", pair.name, _changed(pair.files, None))
    for name in DISTURBED:
        for how, change in CHANGES.items():
            yield Case("disturbed", f"{name} {how}", _changed(pairs[name].files, change))
    for name in RECOLOURED:
        yield Case("recoloured", name, _changed(pairs[name].files, recoloured))
    limbs = [
        (p, *of)
        for p in ("004", "022")
        for of in (("ct", "mr"), ("mr", "ct"), ("ct", "pet"), ("pet", "ct"), ("mr", "pet"))
    ]
    for patient, fixed, moving in limbs:
        yield _of_data("limb", *(f"limb_ct_mr/{patient}/{scan}" for scan in (fixed, moving)))
    yield _of_data("limb", "limb_ct_mr/022/ct", "limb_ct_mr/022_planted/mr_moved")
    for first, second in permutations(ORGANS, 2):
        if not {first, second} <= SAME_LIMB:
            yield _of_data("other organ", ORGANS[first], ORGANS[second], align_centres=True)
    for fixed, moving in MASKS:
        yield _of_data("label map", fixed, moving)
    for pair_ in REGIONS:
        for parts in ((LOWER, UPPER), (UPPER, LOWER)):
            yield Case("other region", f"{pair_} {parts[0]}", _halves(pair_, parts), align_centres=True)


def _of_data(kind: str, fixed: str, moving: str, *, align_centres: bool = False) -> Case:
    """Return a case of two files of the data as they are."""
    files = {"fixed": DATA / f"{fixed}.nii.gz", "moving": DATA / f"{moving}.nii.gz"}
    return Case(kind, f"{fixed} {moving}", lambda place: files, align_centres)


def _images(files: Files) -> Files:
    """Return the two scans of a pair alone: labels and landmarks would tell whether a result is right."""
    return {key: files[key] for key in ("fixed", "moving")}


def _changed(files: Files, change: Callable[[Scans], Scans] | None) -> Callable[[Path], Files]:
    """Return what writes a changed pair, or names one that is not changed."""
    if change is None:
        return lambda place: _images(files)
    return lambda place: write_scans(change(read_scans(_images(files))), place / "scans")


def _on_moving(of: Callable[[np.ndarray, float, float], np.ndarray]) -> Callable[[Scans], Scans]:
    """Return a change of the moving intensities, given with their range."""

    def change(scans: Scans) -> Scans:
        """Change the intensities."""
        low, high = np.percentile(scans.moving.image, PERCENTILES)
        image = of(scans.moving.image, float(low), float(high - low)).astype(np.float32)
        return replace(scans, moving=replace(scans.moving, image=image))

    return change


def _noise(share: float) -> Callable[[Scans], Scans]:
    """Return a change that adds white noise, as a share of the intensity range."""
    return _on_moving(lambda x, low, span: x + np.random.default_rng(0).normal(0, share * span, x.shape))


CHANGES: dict[str, Callable[[Scans], Scans]] = {
    "noise of 10 %": _noise(0.1),
    "noise of 20 %": _noise(0.2),
    "blur": _on_moving(lambda x, low, span: gaussian_filter(x, BLUR_VOXELS)),
    "half the contrast": _on_moving(lambda x, low, span: low + 0.5 * (x - low) + 0.2 * span),
    "shift": placed(shift_mm=(15, -10, 12)),
}


def _halves(patients: tuple[int, int], parts: tuple[slice, slice]) -> Callable[[Path], Files]:
    """Return what writes a part of each of two head and neck scans, along the body."""

    def write(place: Path) -> Files:
        """Write both parts."""
        files = {}
        for key, patient, part in zip(("fixed", "moving"), patients, parts, strict=True):
            image: Any = nib.load(DATA / "head_neck_ct" / f"pt_{patient}_ct.nii.gz")
            files[key] = place / f"{key}.nii.gz"
            nib.save(
                image.slicer[:, :, slice(*(int(image.shape[2] * at) for at in (part.start, part.stop)))], files[key]
            )
        return files

    return write


if __name__ == "__main__":
    fire.Fire(main)
