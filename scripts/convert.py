"""Result folders and saved maps -> files of other programs; no registration, no networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.apply import open_map, output_paths
from scripts.errors import PairError
from scripts.exporters import save_image
from scripts.files import claim_folder
from scripts.itk_files import save_field
from scripts.learn2reg import FORMATS, displacement_name, save_displacement, to_stored, zip_submission
from scripts.metrics import jacobian_determinant
from scripts.names import IMAGES, RESULT_FILES, RUN_FILE, image_stem, map_stem
from scripts.saved import SavedResult, saved_results

SUBMISSION = "submission.zip"
JACOBIAN = "jacobian"
MAP_FORMATS = {name: f".{name}" for name in ("nii.gz", "nrrd", "mha", "h5", "tfm")} | {JACOBIAN: "_jacobian.nii.gz"}


def export_learn2reg(results: Sequence[SavedResult], output_dir: str | Path, *, kind: str, names: str) -> list[Path]:
    """The displacement files made of result folders, and submission.zip of them all.

    Args:
        kind: a key of `learn2reg.FORMATS`. names: auto, short or long, see `learn2reg.displacement_name`.

    Raises:
        PairError: two results that give one file name, besides what reading and writing refuse.
    """
    wanted: dict[str, SavedResult] = {}
    for result in results:
        if not result.inputs:
            what = f"{result.folder} was saved from Python and knows no files of scans"
            raise PairError(f"{what}, after which Learn2Reg's are named; use another --format")
        stems = [image_stem(str(result.inputs[key])) for key in IMAGES]
        name = displacement_name(stems[0], stems[1], names=names) + FORMATS[kind]
        if name in wanted:
            both = f"{wanted[name].folder} and {result.folder}"
            raise PairError(f"{both} both give {name}; use --names long, or export one of them")
        wanted[name] = result
    target = claim_folder(output_dir)
    for name, result in wanted.items():
        field, affine = result.field()
        stored = to_stored(field, fixed_affine=affine, moving_affine=result.grid("moving").affine)
        save_displacement(target / name, stored)
    zip_submission(target, target / SUBMISSION)
    return [*(target / name for name in wanted), target / SUBMISSION]


def export_maps(
    path: str | Path,
    output_dir: str | Path,
    *,
    kind: str,
    reference: str | Path | None = None,
    before: str | Path | None = None,
    after: str | Path | None = None,
) -> dict[Path, float]:
    """The files made of maps, each one field or its Jacobian determinant, and the share of its voxels that the map knows.

    The determinant is 1 where volume stays, above 1 where the moving scan's part is larger than the fixed one's, 0 or less
    in a fold.

    Args:
        path: a result folder, a folder of such, or what `saved.saved_map` opens. kind: a key of MAP_FORMATS. reference: a
            scan whose grid they lie on, by default the map's own. before, after: see `apply.open_map`.

    Raises:
        PairError: what reading and writing refuse, or an output that is an input.
    """
    folders = [(result.name, result.folder) for result in saved_results(path)] if Path(path).is_dir() else []
    sources = folders or [(_name_of(Path(path)), Path(path))]
    read = [*(folder / name for _, folder in folders for name in RESULT_FILES), path, reference, before, after]
    names = [name + MAP_FORMATS[kind] for name, _ in sources]
    targets = output_paths(names, output_dir, read=[file for file in read if file is not None])
    known_share = {}
    for (_, source), target in zip(sources, targets, strict=True):
        opened = open_map(source, reference=reference, before=before, after=after)
        found, known = opened.map.on(opened.reference)
        if kind == JACOBIAN:
            save_image(target, jacobian_determinant(found.field), found.grid.affine)
        else:
            save_field(target, found.field, found.grid.affine)
        known_share[target] = float(known.float().mean())
    return known_share


def _name_of(path: Path) -> str:
    """What a map's file is called: a file of a result as its folder."""
    of_result = path.name in RESULT_FILES and (path.absolute().parent / RUN_FILE).exists()
    return path.absolute().parent.name if of_result else map_stem(str(path))
