"""A saved result judged by other fits of the same pair: disturbed, with other seeds, and the other way round."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from tqdm import tqdm

from ncf.api.again import Again, exchanged, read_again
from ncf.core.errors import PairError
from ncf.core.files import save_json, write_together
from ncf.core.interruption import end_of
from ncf.core.names import DEFORMABLE, GRID_OF, IMAGES, TRUST_FILE, TRUST_NUMBERS_FILE
from ncf.core.refusals import explanation
from ncf.evaluate.structures import Scan
from ncf.evaluate.tg132 import body_of
from ncf.evaluate.trust import FACTORS, FLOOR, NEAR_MM, Trust, trust_in_words, trust_of
from ncf.fit.fitted import Fit
from ncf.io.label_files import table_of
from ncf.io.trust_file import save_trust
from ncf.pair.keys import Pair, affine_of
from ncf.result.folder import SavedResult
from ncf.run.guard import drop_volumes
from ncf.space.geometry import spacing_mm
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap

PRESET = "fast"
MEMBERS, LEAST_MEMBERS = 4, 2
NOISE = 0.02  # standard deviation, as a share of the range of intensities
PERCENTILES = (0.5, 99.5)  # of that range
CUT_MM, MOST_CUT = (4.0, 6.0, 9.0, 7.0), 0.06  # from the low end of every axis, and of its voxels: all lattices shift
GUIDES = "guide_points"


def trust(
    folder: str | Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    members: int = MEMBERS,
    preset: str = PRESET,
    progress: bool = True,
) -> tuple[Trust, list[Path]]:
    """Bound the error of a saved result at every fixed voxel; write trust.nii.gz and trust.json to its folder.

    Args:
        folder: of the result.

    Keyword Args:
        inputs: scans, masks or labels that have moved since, by key.
        members: how many other fits are made; every second one the other way round.
        preset: of these.
        progress: False hides the bar, which only a terminal shows.

    Returns:
        The bounds, and the files that were written.

    Raises:
        PairError: the result is not complete or of another program, it has no motion (between two contrasts), a file
            is not there or has changed, or a fit fails.
        ValueError: there are fewer than two members.
    """
    if members < LEAST_MEMBERS:
        raise ValueError(f"the error is bounded by {LEAST_MEMBERS} fits or more, not {members}")
    begun = time.perf_counter()
    result = SavedResult(Path(folder))
    pair = read_again(result, inputs or {})
    if not (result.run.get("contrast") or {}).get("moved", True):
        raise PairError(
            f"{result.name}: between these two contrasts no motion was taken, and other fits would agree in that "
            "alone; the error of such a result is not known"
        )
    field, _ = result.field()
    own = SpatialMap(torch.as_tensor(field), Grid(tuple(field.shape[1:]), affine_of(pair["fixed"])))
    again = Again(result, preset, transform=DEFORMABLE)  # what a rigid map leaves is an error too
    there: list[SpatialMap] = []
    back: list[SpatialMap] = []
    told = []
    for number in tqdm(range(members), desc="other fits", disable=None if progress else True):
        other_way = number % 2 == 1
        given = disturbed(exchanged(pair) if other_way else _for_fits(pair), number)
        what = f"fit {number + 1} of {members}, {'fixed and moving exchanged' if other_way else 'disturbed'},"
        with _in_silence():
            fit, _ = again(cast(Pair, {**given, "name": result.name}), what, seed=again.seed + number + 1)
        (back if other_way else there).append(_map(fit, given["fixed"]))
        told.append(f"{'exchanged' if other_way else 'as it was'}, disturbed, seed {again.seed + number + 1}")
    moving = Grid(tuple(pair["moving"].shape[1:]), affine_of(pair["moving"]))
    found = trust_of(own, moving, there, back, told)
    numbers = {**_numbers(found, pair), "preset": preset, "seconds": round(time.perf_counter() - begun, 2)}

    def write(place: Path) -> None:
        """Write both files into a folder."""
        save_trust(place / TRUST_FILE, found.bounds_mm, own.grid.affine)
        save_json(place / TRUST_NUMBERS_FILE, numbers)

    write_together(result.folder, write)
    return found, [result.folder / name for name in (TRUST_FILE, TRUST_NUMBERS_FILE)]


def disturbed(pair: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a pair with noise on both scans, and a fixed scan without its first few millimetres along every axis.

    Args:
        pair: scans, masks, labels and guide points.
        number: another one is another disturbance; the same one is the same.
    """
    fixed = pair["fixed"]
    spacing = spacing_mm(affine_of(fixed))
    cut_mm = CUT_MM[number % len(CUT_MM)]
    cut = [min(math.ceil(cut_mm / mm), int(MOST_CUT * n)) for mm, n in zip(spacing, fixed.shape[1:], strict=True)]
    found = dict(pair)
    for key in ("fixed", *(key for key, side in GRID_OF.items() if side == "fixed" and key in pair)):
        found[key] = _without(pair[key], cut)
    if GUIDES in pair:
        found[GUIDES] = np.asarray(pair[GUIDES]) - np.array([*cut, 0, 0, 0])
    random = torch.Generator().manual_seed(number)
    for key in IMAGES:
        found[key] = _noisy(found[key], random)
    return found


class Trusts:
    """Remembers the results of an evaluator (as its handler), then bounds their errors.

    Args:
        wanted: False does nothing.
        progress: False hides the bar, which only a terminal shows.
    """

    def __init__(self, wanted: bool = False, *, progress: bool = True) -> None:
        self.wanted, self.progress = wanted, progress
        self.failed: list[str] = []
        self._folders: list[Path] = []
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Ask the engine to call this after each pair."""
        self._engine = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Remember the folder of the result that was just saved."""
        output: Any = engine.state.output
        if self.wanted:
            self._folders.append(Path(output["result_dir"]))

    def made(self) -> list[str]:
        """Bound the errors of all remembered results.

        Returns:
            One line for each that could not be bounded.
        """
        folders, self._folders = self._folders, []
        if folders and self._engine is not None:
            drop_volumes(self._engine)
        return [why for folder in folders if (why := bounded_or_reason(folder, progress=self.progress)) is not None]

    def run(self) -> None:
        """Bound the errors of all remembered results, and remember what could not be done.

        Raises:
            SystemExit: with status 130 for Ctrl-C.
        """
        folders = list(self._folders)
        try:
            self.failed = self.made()
        except KeyboardInterrupt:
            again = "; ".join(f"ncf trust {folder}" for folder in folders)
            raise end_of(f"the result is complete, its error is not bounded; done again by {again}") from None

    def end(self) -> None:
        """End the process with status 1 and one line for each result whose error could not be bounded, if any."""
        if self.failed:
            sys.exit("error: " + "\n".join(self.failed))


def bounded_or_reason(folder: Path, *, progress: bool = True) -> str | None:
    """Bound the error of a saved result with the usual fits, and print the bounds in one line.

    Args:
        folder: of the result.
        progress: see `trust`.

    Returns:
        None, or a line that says why the error could not be bounded.
    """
    try:
        found, _ = trust(folder, progress=progress)
    except Exception as error:  # whatever it is, the result is complete and must stay complete
        told = explanation(error, face="command") or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return f"the result in {folder} is complete, but its error could not be bounded: {told}"
    print(f"  error       {trust_in_words(found.summary())}")
    return None


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Keep other fits from telling what the first one told already."""
    log = logging.getLogger("ncf.fit")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _for_fits(pair: Pair) -> dict[str, Any]:
    """Return the parts of a pair that a fit looks at."""
    return {key: pair[key] for key in (*IMAGES, *GRID_OF, GUIDES) if key in pair}  # type: ignore[literal-required]


def _without(image: MetaTensor, cut: list[int]) -> MetaTensor:
    """Return an image without its first voxels along each axis."""
    affine = affine_of(image).copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(cut)
    values = image.as_tensor()[:, cut[0] :, cut[1] :, cut[2] :].contiguous()
    return _like(image, values, affine)


def _noisy(image: MetaTensor, random: torch.Generator) -> MetaTensor:
    """Return a scan with noise; its smallest value, which may mean that there are no data, stays."""
    values = image.as_tensor()
    sample = values.flatten()[:: max(1, values.numel() // 2**20)].double().numpy()
    low, high = np.percentile(sample, PERCENTILES)
    noise = torch.randn(values.shape, generator=random) * (NOISE * float(high - low))
    found = torch.where(values == values.min(), values, values + noise)
    return _like(image, found, affine_of(image))


def _like(image: MetaTensor, values: torch.Tensor, affine: np.ndarray) -> MetaTensor:
    """Return other values with all that is known of an image, on the grid of an affine."""
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(values, affine=torch.as_tensor(affine), meta=meta)


def _map(fit: Fit, fixed: MetaTensor) -> SpatialMap:
    """Return the map of a fit on the grid of its fixed scan."""
    return SpatialMap(fit.field_vox[0].cpu(), Grid(tuple(fixed.shape[1:]), affine_of(fixed)))


def _numbers(found: Trust, pair: Pair) -> dict[str, Any]:
    """Return what trust.json holds, but for how it came about."""
    scan, structures = Scan(pair["fixed"].as_tensor()[0], affine_of(pair["fixed"])), {}
    if "fixed_label" in pair:
        label = pair["fixed_label"]
        scan = replace(scan, label=label.as_tensor()[0], table=table_of(label))
        codes = label.as_tensor()[0].numpy()
        labels = sorted(scan.table.of(np.unique(codes)))
        structures = {str(n): found.summary(scan.table.mask(codes, n)) for n in labels}
    body = body_of(scan).numpy()
    return {
        "everywhere": found.summary(),
        "body": found.summary(body),
        "structures": structures,
        "largest": found.largest(affine_of(pair["fixed"]), body),
        "members": list(found.members),
        "method": {"factors": FACTORS, "floor_voxels": FLOOR, "near_mm": NEAR_MM},
    }
