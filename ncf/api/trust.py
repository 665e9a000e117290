"""A saved result judged by other fits of the same pair: disturbed, with other seeds, and the other way round."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from tqdm import tqdm

from ncf.api.again import Again, exchanged, read_again
from ncf.api.disturbed import GUIDES, disturbed
from ncf.core.console import tell
from ncf.core.errors import PairError
from ncf.core.files import claim_folder, save_json, write_together
from ncf.core.interruption import end_of, interrupted
from ncf.core.names import DEFORMABLE, GRID_OF, IMAGES, TRUST_FILE, TRUST_NUMBERS_FILE
from ncf.core.paths import expanded
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
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap

PRESET = "fast"
MEMBERS, LEAST_MEMBERS = 4, 2


def trust(
    folder: str | Path,
    *,
    inputs: Mapping[str, str | Path] | None = None,
    members: int = MEMBERS,
    preset: str = PRESET,
    progress: bool = True,
) -> Trust:
    """Bound the error of a saved result at every fixed voxel; write trust.nii.gz and trust.json to its folder.

    The other fits may bend space also where the map is rigid or affine: what such a map leaves is its error.

    Args:
        folder: of the result.

    Keyword Args:
        inputs: paths of scans or labels that have moved since, or that a result saved from Python does not know, by
            key, such as ``fixed`` and ``moving``.
        members: how many other fits are made; every second one the other way round.
        preset: of these.
        progress: False hides the bars, which only a terminal shows.

    Returns:
        The bounds, with their numbers.

    Raises:
        PairError: the result is not complete or of another program, it has no motion (between two contrasts), a file
            is not there, has changed or is another scan, the folder cannot be written, or a fit fails.
        ValueError: there are fewer than two members.
    """
    if members < LEAST_MEMBERS:
        raise ValueError(f"the error is bounded by {LEAST_MEMBERS} fits or more, not {members}")
    begun = time.perf_counter()
    result = SavedResult(expanded(folder).absolute())
    pair = read_again(result, {key: expanded(path).absolute() for key, path in (inputs or {}).items()})
    if not (result.run.get("contrast") or {}).get("moved", True):
        raise PairError(
            f"{result.name}: between these two contrasts no motion was taken, and other fits would agree in that "
            "alone; the error of such a result is not known"
        )
    claim_folder(result.folder)  # before the fits, which take minutes
    field, _ = result.field()
    own = SpatialMap(torch.as_tensor(field), Grid(tuple(field.shape[1:]), affine_of(pair["fixed"])))
    there, back, told = _other_maps(result, pair, members=members, preset=preset, progress=progress)
    moving = Grid(tuple(pair["moving"].shape[1:]), affine_of(pair["moving"]))
    found = trust_of(own, moving, there, back, told)
    numbers = {**_numbers(found, pair), "preset": preset, "seconds": round(time.perf_counter() - begun, 2)}

    def write(place: Path) -> None:
        """Write both files into a folder."""
        save_trust(place / TRUST_FILE, found.bounds_mm, own.grid.affine)
        save_json(place / TRUST_NUMBERS_FILE, numbers)

    write_together(result.folder, write)
    return replace(found, numbers=numbers)


def _other_maps(
    result: SavedResult, pair: Pair, *, members: int, preset: str, progress: bool
) -> tuple[list[SpatialMap], list[SpatialMap], list[str]]:
    """Fit a pair again, disturbed, every second time the other way round, and half of the times without the search.

    Returns:
        The maps from fixed to moving, those from moving to fixed, and what was done for each, in words.
    """
    # deformable: what a rigid map leaves is an error too
    searching, alone = (
        Again(result, preset, transform=DEFORMABLE, search=search, progress=progress) for search in (True, False)
    )
    there: list[SpatialMap] = []
    back: list[SpatialMap] = []
    told = []
    for number in tqdm(range(members), desc="other fits", disable=None if progress else True):
        other_way = number % 2 == 1
        given = disturbed(exchanged(pair) if other_way else _for_fits(pair), number)
        what = f"fit {number + 1} of {members}, {'fixed and moving exchanged' if other_way else 'disturbed'},"
        how = ["exchanged" if other_way else "as it was", "disturbed"]
        fit = None
        if number // 2 % 2 == 1:  # after two with the search two without it, which end in other valleys
            fit = _fit_or_none(alone, given, result.name, what, number)
            how += ["without the search" if fit is not None else "with the search, because without it none was found"]
        if fit is None:
            fit = _fit(searching, given, result.name, what, number)
        (back if other_way else there).append(_map(fit, given["fixed"]))
        told.append(f"{', '.join(how)}, seed {searching.seed + number + 1}")
    return there, back, told


def _fit(again: Again, given: Mapping[str, Any], name: str, what: str, number: int) -> Fit:
    """Fit a disturbed pair with a seed of its own; nothing of it is logged."""
    with _in_silence():
        return again(cast(Pair, {**given, "name": name}), what, seed=again.seed + number + 1)[0]


def _fit_or_none(again: Again, given: Mapping[str, Any], name: str, what: str, number: int) -> Fit | None:
    """Fit a disturbed pair; None where the motion is out of reach, which says nothing of the error."""
    try:
        return _fit(again, given, name, what, number)
    except PairError as error:
        if interrupted(error):
            raise
        return None


class Trusts:
    """Remembers the results of an evaluator (as its handler), then bounds their errors.

    Args:
        wanted: False does nothing.
        progress: False hides the bars, which only a terminal shows.
        renew: takes the folder of every result whose error was bounded, for its report to be made again.
    """

    def __init__(
        self, wanted: bool = False, *, progress: bool = True, renew: Callable[[Path], object] = lambda _: None
    ) -> None:
        self.wanted, self.progress, self.renew = wanted, progress, renew
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
        failed = []
        for folder in folders:
            why = bounded_or_reason(folder, progress=self.progress)
            if why is None:
                self.renew(folder)
            else:
                failed.append(why)
        return failed

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
            raise end_of(f"the result is complete, but its error is not bounded; bound it by {again}") from None

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
        found = trust(folder, progress=progress)
    except Exception as error:  # whatever it is, the result is complete and must stay complete
        if interrupted(error):
            raise KeyboardInterrupt from None
        told = explanation(error, face="command") or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return f"the result in {folder} is complete, but its error could not be bounded: {told}"
    tell(f"  error       {trust_in_words(found.numbers)}")
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


def _map(fit: Fit, fixed: MetaTensor) -> SpatialMap:
    """Return the map of a fit on the grid of its fixed scan."""
    return SpatialMap(fit.field_vox[0].cpu(), Grid(tuple(fixed.shape[1:]), affine_of(fixed)))


def _numbers(found: Trust, pair: Pair) -> dict[str, Any]:
    """Return what trust.json holds, but for how it came about."""
    scan = Scan(pair["fixed"].as_tensor()[0], affine_of(pair["fixed"]))
    structures, together = {}, {}
    if "fixed_label" in pair:
        label = pair["fixed_label"]
        scan = replace(scan, label=label.as_tensor()[0], table=table_of(label))
        codes = label.as_tensor()[0].numpy()
        labels = sorted(scan.table.of(np.unique(codes)))
        structures = {str(n): found.summary(scan.table.mask(codes, n)) for n in labels}
        together = {"labels": found.summary(codes > 0)}
    body = body_of(scan).numpy()
    return {
        "everywhere": found.summary(),
        "body": found.summary(body),
        **together,
        "structures": structures,
        "largest": found.largest(affine_of(pair["fixed"]), body),
        "members": list(found.members),
        "method": {"factors": FACTORS, "floor_voxels": FLOOR, "near_mm": NEAR_MM},
    }
