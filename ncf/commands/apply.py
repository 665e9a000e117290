"""``ncf apply``: scans, label maps, doses and points carried by a saved map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, given_paths, one_of, or_refused, refuse, true_or_false
from ncf.core.labels import sides_of
from ncf.core.names import DOSE_RULES

if TYPE_CHECKING:
    from ncf.use.carry import Applied

MODES = {
    "image": {"linear": "bilinear", "cubic": "spline"},
    "label": {"nearest": "nearest", "soft": "soft"},
}
SIDES, SPACES = ("fixed", "moving"), ("lps", "ras", "voxel")


@SetParseFn(str)
def apply(
    result: str,
    *files: str,
    to: str,
    output_dir: str,
    reference: str | None = None,
    interpolation: str | None = None,
    labels: str | None = None,
    from_: str | None = None,
    space: str | None = None,
    moving: str | None = None,
    pre_transform: str | None = None,
    post_transform: str | None = None,
    dicom: str | None = None,
    anonymous: str = "false",
    rule: str | None = None,
    sum: str | None = None,
) -> CallJob:
    """Carry FILES by the map of RESULT: scans, labels and doses of the moving side onto a grid, or points to the other.

    Args:
        result: a result folder, its network.pt, or a field's file.
        files: scans, label maps (RTSTRUCT and SEG too), doses (RTDOSE too) or points; by default the registered ones of
            the moving side, which knows no dose and no points.
        to: what the files are: image, label, dose or points.
        output_dir: where the results go, under the files' own names; images, labels and doses become .nii.gz, and an
            RTDOSE an RTDOSE where the fixed scan is a DICOM series.
        reference: a scan whose grid images, labels and doses go onto; by default the fixed scan's.
        interpolation: for images linear (the default) or cubic, for labels nearest (the default) or soft.
        labels: names or numbers of the labels to carry, such as Heart,Lung_L; by default all.
        from: where the points are, fixed or moving; for points only, and never guessed.
        space: of the numbers in a CSV or a mesh: lps, ras (mm) or voxel. Slicer's files name their own.
        moving: a scan on the moving grid, for voxel indices and for an RTSTRUCT where RESULT is a field's file; a dose
            must lie in its frame of reference.
        pre_transform: 4x4 affine of a reference point, applied first: rows of a text file (RAS mm) or an ITK transform.
        post_transform: another affine, of the moving point, applied last.
        dicom: true writes images as DICOM series of the fixed scan's study, which --reference names where RESULT does
            not; FILES are DICOM series too. Of doses, true and false choose RTDOSE or NIfTI.
        anonymous: true writes DICOM objects without the patient's data, and with other UIDs.
        rule: for doses: dose (the default), the dose at a point; or energy, which keeps energy at one density: the same
            times the local change of volume.
        sum: true adds all doses up into one file, dose_sum.
    """
    kind = one_of("to", to, (*MODES, "dose", "points"))
    _belong({"from": from_, "space": space}, kind == "points", "--to=points")
    _belong({"moving": moving}, kind != "image", "--to=points, label and dose")
    _belong({"labels": labels}, kind == "label", "--to=label")
    _belong({"interpolation": interpolation}, kind in MODES, "--to=image and --to=label")
    _belong({"reference": reference}, kind != "points", "--to=image, label and dose")
    _belong({"rule": rule, "sum": sum}, kind == "dose", "--to=dose")
    side = None if from_ is None else one_of("from", from_, SIDES)
    if kind == "points" and (side is None or not files):
        refuse("points need files, and --from=fixed or --from=moving: where they are")
    if kind == "dose" and not files:
        refuse("doses need files: name an RTDOSE or an image of a dose")
    chosen = None if space is None else one_of("space", space, SPACES)
    modes = MODES.get(kind, {"": ""})
    mode = modes[one_of("interpolation", interpolation or next(iter(modes)), tuple(modes))]
    wanted = [] if labels is None else [second for _, second in or_refused(sides_of, labels)]
    source, target = absolute("result", result), absolute("output_dir", output_dir)
    paths = [absolute("files", file) for file in files]
    transforms = given_paths(pre_transform=pre_transform, post_transform=post_transform)
    given = given_paths(reference=reference, moving=moving) | transforms
    series = None if dicom is None else true_or_false("dicom", dicom)
    hidden = true_or_false("anonymous", anonymous)
    if series and kind not in ("image", "dose"):
        refuse("--dicom is for --to=image and dose; structures are written by ncf export --format=rtstruct or seg")
    if hidden and not series:
        refuse("--anonymous is for DICOM objects; add --dicom=true")
    by = one_of("rule", rule or DOSE_RULES[0], DOSE_RULES)
    add = sum is not None and true_or_false("sum", sum)

    def call() -> None:
        """Carry the files and print the paths of the results."""
        from ncf.use.carry import open_map

        opened = open_map(source, **given)
        if kind == "dose":
            from ncf.use.dose import carry_doses

            onto = given.get("reference")
            made, lines = carry_doses(
                opened, paths, target, rule=by, add=add, dicom=series, reference=onto, anonymous=hidden
            )
            print("\n".join([*lines, *map(str, made)]))
            return
        if series:
            from ncf.use.dicom import carry_series

            scans = paths or [opened.registered("moving")]
            made = carry_series(opened, scans, target, mode=mode, reference=given.get("reference"), anonymous=hidden)
            print("\n".join(map(str, made)))
            return
        if side:
            written = _points(opened, paths, target, side, chosen)
        else:
            written = _volumes(opened, paths, target, kind, mode=mode, wanted=wanted)
        print("\n".join(map(str, written)))

    return CallJob(call, output_dir=target)


def _points(opened: Applied, paths: list[Path], target: Path, side: str, space: str | None) -> list[Path]:
    """Carry points; print how many lie outside the range of the map."""
    from ncf.use.carry import apply_to_points

    written, outside = apply_to_points(opened, paths, target, side=side, space=space)
    lie = "point lies" if outside == 1 else "points lie"
    print(f"{outside} {lie} outside the range of the map, marked as such" if outside else "all points are known")
    return written


def _volumes(
    opened: Applied, paths: list[Path], target: Path, kind: str, *, mode: str, wanted: list[str | int]
) -> list[Path]:
    """Carry scans or label maps, by default the registered one."""
    from ncf.use.carry import apply_to_images

    registered = "moving" if kind == "image" else "moving_label"
    return apply_to_images(opened, paths or [opened.registered(registered)], target, mode=mode, wanted=wanted)


def _belong(options: dict[str, str | None], fits: bool, where: str) -> None:
    """Refuse options that were given for another kind of file."""
    wrong = next((name for name, value in options.items() if value is not None and not fits), None)
    if wrong is not None:
        refuse(f"--{wrong} is for {where}")
