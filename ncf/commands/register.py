"""``ncf register``: registration of one pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fire.decorators import SetParseFn

from ncf.commands.common import (
    ConfigJob,
    chosen_configs,
    fit_options,
    given_paths,
    or_refused,
    plain,
    refuse,
    true_or_false,
    whole_number,
)
from ncf.core.names import IMAGES, PAIR_KEYS, pair_name, safe_name
from ncf.core.paths import there
from ncf.core.presets import OVERLAY_SUFFIX
from ncf.core.scan_paths import MARK

NAMED = ("warped", "field")  # files under names of the user's


@SetParseFn(str)
def register(
    fixed: str | None = None,
    moving: str | None = None,
    *,
    fixed_series: str | None = None,
    moving_series: str | None = None,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    fixed_mask: str | None = None,
    moving_mask: str | None = None,
    landmarks: str | None = None,
    guide_points: str | None = None,
    fixed_guide_points: str | None = None,
    moving_guide_points: str | None = None,
    output_dir: str = "output",
    name: str | None = None,
    warped: str | None = None,
    field: str | None = None,
    seed: str = "0",
    device: str | None = None,
    preset: str | None = None,
    modality: str = "auto",
    transform: str = "deformable",
    labels: str | None = None,
    guide_labels: str = "false",
    rigid_label: str | None = None,
    keep_volume_label: str | None = None,
    align_centres: str = "false",
    strict: str = "false",
    dicom: str = "false",
    anonymous: str = "false",
    trust: str = "false",
    report: str = "true",
    progress: str = "true",
    phantom_size: str | None = None,
    phantom_seed: str = "0",
) -> ConfigJob:
    """Register MOVING to FIXED and write the map, the warped files and the numbers to <output_dir>/<name>/.

    Without FIXED and MOVING a breathing phantom is made and registered.

    Args:
        fixed: the scan on whose grid results lie: .nii, .nii.gz, .mha, .mhd, .nrrd, or DICOM: a folder or a file.
        fixed_series: which DICOM volume of a folder with several: its number in `ncf files FOLDER`, or the UID of a
            series. FOLDER#3 says the same, in every command.
        moving_series: likewise.
        moving: the scan to bring onto it; it may have its own grid, size and orientation.
        fixed_label: label map on the fixed grid, for Dice and for folds inside it; or a DICOM RTSTRUCT or SEG.
        moving_label: the same on the moving grid; carried over to the fixed grid.
        fixed_mask: weights on the fixed grid; voxels of 0 are left out of the fit. Or structures: a DICOM RTSTRUCT or
            SEG, RS.dcm#Heart,Lung_L for some of them.
        moving_mask: the same on the moving grid.
        landmarks: CSV with six columns, voxel indices of a point in fixed, then of the same point in moving.
        guide_points: points that you know to belong together, as a CSV like that of landmarks; they guide the fit.
        fixed_guide_points: these points in the fixed scan, in a file of their own: markups of 3D Slicer, or a CSV with
            three columns of voxel indices.
        moving_guide_points: the same points, in the same order, in the moving scan.
        output_dir: where the result folder is made.
        name: of the result folder; by default <fixed>__<moving>, with a preset <fixed>__<moving>__<preset>.
        warped: a file for the warped scan too, under a name of your own: .nii.gz, .nii, .mha or .nrrd.
        field: a file for the displacement field too, under a name of your own: also .h5 or .tfm, as transforms of ITK.
        seed: of the network's first weights.
        device: cpu, cuda, cuda:1, mps; by default a CUDA device where there is one.
        preset: one of the presets below, or the path of a JSON overlay of your own.
        modality: same or different, where auto, which asks the scans themselves, chooses wrongly: whether both show one
            contrast, or two as CT and MR do.
        transform: rigid, affine or deformable: what the map may do.
        labels: names or numbers of the labels that count, such as Heart,Lung_L; by default all. Heart=Herz is called
            Heart in the fixed and Herz in the moving map.
        guide_labels: true lets labels with equal numbers (or names) guide the fit (both label maps are needed).
        rigid_label: numbers or names of fixed labels, such as 3,5, in which the map stays rigid, each by itself.
        keep_volume_label: numbers or names of fixed labels whose volume is kept.
        align_centres: true begins with the centres of both grids together (for headers that do not overlap).
        strict: true ends with status 2 where the verdict is doubtful; the files are written all the same.
        dicom: true also writes DICOM objects into the folder dicom/ of the result: the warped series, the registration,
            and the carried labels; both scans are DICOM series.
        anonymous: true writes these objects without the patient's data, and with other UIDs.
        trust: true bounds the error at every voxel, in mm, by four more fits (`ncf trust` does so later).
        report: false makes no report.html and no pictures.
        progress: false hides the progress bar.
        phantom_size: voxels of the phantom, such as 64,64,64.
        phantom_seed: of the phantom's anatomy and noise.
    """
    return _job(dict(locals()))


def _job(given: dict[str, Any]) -> ConfigJob:
    """Return the job that a command line describes; end the process where an option is wrong.

    Args:
        given: every option as it was given, by its name.
    """
    for key in IMAGES:
        given[key] = _of_series(key, given[key], given[f"{key}_series"])
    overrides: dict[str, Any] = {**given_paths(**{key: given.get(key) for key in (*PAIR_KEYS, "output_dir", *NAMED)})}
    overrides |= {"face": "command", **fit_options(given)}
    overrides["phantom_seed"] = whole_number("phantom_seed", given["phantom_seed"])
    overrides |= {option: true_or_false(option, given[option]) for option in ("report", "progress")}
    overrides |= {option: True for option in ("strict", "trust") if true_or_false(option, given[option])}
    overrides |= {option: plain(option, given[option]) for option in ("name", "device") if given[option] is not None}
    if given["preset"] is not None and given["name"] is None and {"fixed", "moving"} <= set(overrides):
        overrides["name"] = name_with_preset(overrides["fixed"], overrides["moving"], given["preset"])
    objects, hidden = (true_or_false(option, given[option]) for option in ("dicom", "anonymous"))
    if hidden and not objects:
        refuse("--anonymous is for DICOM objects; add --dicom=true")
    overrides |= {"dicom": True, "anonymous": hidden} if objects else {}
    if given["phantom_size"] is not None:
        sizes = given["phantom_size"]
        overrides["phantom_size"] = [whole_number("phantom_size", n) for n in sizes.strip("()[] ").split(",")]
    inputs = {key: path for key, path in overrides.items() if key in PAIR_KEYS}
    if inputs and (given["phantom_size"] is not None or given["phantom_seed"] != "0"):
        refuse("--phantom_size and --phantom_seed are for the phantom that is made when no scans are named")
    wanted = {key: path for key, path in overrides.items() if key in NAMED}
    return ConfigJob(
        chosen_configs(given["preset"]),
        tuple(overrides.items()),
        check=lambda: _check_there(inputs, wanted, dicom=objects, anonymous=hidden),
    )


def name_with_preset(fixed: Path, moving: Path, preset: str) -> str:
    """Return the usual name of a result with that of the preset: two presets of one pair are two results."""
    return f"{pair_name(str(fixed), str(moving))}__{safe_name(Path(preset).name.removesuffix(OVERLAY_SUFFIX))}"


def _of_series(key: str, path: str | None, series: str | None) -> str | None:
    """Return the path of a scan with the choice of a volume behind it."""
    if series is None:
        return path
    if not path or not series:
        refuse(f"--{key}_series is the number or UID of a DICOM volume of {key.upper()}; give both")
    return f"{path}{MARK}{series}"


def _check_there(inputs: Mapping[str, Path], wanted: Mapping[str, Path], *, dicom: bool, anonymous: bool) -> None:
    """Refuse one scan without the other, missing files, and scans that no DICOM is made of, before the fit."""
    missing = next((key for key in IMAGES if inputs and key not in inputs), None)
    if missing is not None:
        refuse(f"{missing} is not named; give two scans, or nothing at all for a phantom")
    for key, path in inputs.items():
        or_refused(there, path, key)
    if wanted:
        from ncf.io.named_files import NamedFiles  # only where it is asked for

        or_refused(NamedFiles(**wanted).check, inputs.values())
    if dicom:
        from ncf.io.dicom.written.between import between  # only where it is asked for

        if not inputs:
            refuse("--dicom needs two DICOM series, and no scans are named")
        or_refused(between, inputs["fixed"], inputs["moving"], anonymous=anonymous, what="the folder dicom/")
