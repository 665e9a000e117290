"""``ncf apply``: scans, label maps, doses and points carried by a saved map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, given_paths, one_of, or_refused, refuse, true_or_false
from ncf.core.labels import sides_of
from ncf.core.names import DOSE_RULES

if TYPE_CHECKING:
    from ncf.use.carry import Applied

    Carrier = Callable[[Applied, list[Path], Path], list[Any]]  # of a map, files and a folder: what is printed

MODES = {
    "image": {"linear": "bilinear", "cubic": "spline"},
    "label": {"nearest": "nearest", "soft": "soft"},
}
SIDES, SPACES = ("fixed", "moving"), ("lps", "ras", "voxel")
STRUCTURES = ("rtstruct", "seg", "seg-labelmap")  # what labels may be written as; keys of ncf.use.dicom.STRUCTURES
# the options that belong to some kinds of files alone
OWN = {
    "image": ("warped", "field", "interpolation", "reference", "dicom"),
    "label": ("warped", "field", "interpolation", "reference", "moving", "labels", "dicom"),
    "dose": ("reference", "moving", "dicom", "rule", "sum"),
    "points": ("moving", "from", "space"),
}


@SetParseFn(str)
def apply(
    result: str,
    *files: str,
    to: str,
    output_dir: str | None = None,
    warped: str | None = None,
    field: str | None = None,
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
        warped: the file of the result, in place of a folder, for one image or label map: .nii.gz, .nii, .mha or .nrrd.
        field: a file for the whole map too, as a displacement field on the grid of the results, pre_transform and
            post_transform in it: .nii.gz, .nii, .mha, .nrrd, .h5 or .tfm.
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
            not; FILES are DICOM series too. Of doses, true and false choose RTDOSE or NIfTI. Labels become what they
            were, RTSTRUCT or SEG (of label maps in image files RTSTRUCT); rtstruct, seg and seg-labelmap choose.
        anonymous: true writes DICOM objects without the patient's data, and with other UIDs.
        rule: for doses: dose (the default), the dose at a point; or energy, which keeps energy at one density: the same
            times the local change of volume.
        sum: true adds all doses up into one file, dose_sum.
    """
    given = dict(locals()) | {"from": from_}
    kind = one_of("to", to, tuple(OWN))
    _check_place(given, kind)
    source, target = absolute("result", result), _target(given)
    maps = given_paths(reference=reference, moving=moving, pre_transform=pre_transform, post_transform=post_transform)
    carry = {"dose": _doses, "points": _points}.get(kind, _volumes)(given, kind)
    paths = [absolute("files", file) for file in files]
    whole = _named("field", field)
    if whole is not None and whole == target:
        refuse("--warped and --field name one file; give two")

    def call() -> None:
        """Carry the files and print the paths of the results."""
        from ncf.use.carry import open_map, write_field

        opened = open_map(source, **maps)
        print("\n".join(map(str, carry(opened, paths, target))))
        if whole is not None:
            print(write_field(opened, whole))

    return CallJob(call, output_dir=None if warped is not None else target)


def _target(given: Mapping[str, Any]) -> Path:
    """Return where results go: a folder, or the file of the one result."""
    if (given["output_dir"] is None) == (given["warped"] is None):
        refuse("apply needs --output_dir, or --warped for a single result, and not both; see: ncf apply --help")
    if given["warped"] is None:
        return absolute("output_dir", given["output_dir"])
    if len(given["files"]) > 1:
        refuse(f"--warped is for a single file, and {len(given['files'])} are named; give --output_dir")
    if _of_dicom(given):
        refuse("--warped is no DICOM series; give --output_dir, or leave --dicom")
    target = _named("warped", given["warped"])
    assert target is not None
    return target


def _named(option: str, path: str | None) -> Path | None:
    """Return the path of a file under a name of the user's; end the process where it cannot be written."""
    if path is None:
        return None
    from ncf.io.named_files import FIELDS, WRITTEN, check_target  # only where it is asked for

    target = absolute(option, path)
    or_refused(check_target, option, target, WRITTEN if option == "warped" else tuple(FIELDS))
    return target


def _check_place(given: Mapping[str, Any], kind: str) -> None:
    """Refuse options that were given for another kind of file."""
    for option in dict.fromkeys(option for options in OWN.values() for option in options):
        if given[option] is not None and option not in OWN[kind]:
            kinds = " and ".join(f"--to={other}" for other, own in OWN.items() if option in own)
            refuse(f"--{option} is for {kinds}")
    if true_or_false("anonymous", given["anonymous"]) and not _of_dicom(given):
        refuse("--anonymous is for DICOM objects; add --dicom=true")


def _of_dicom(given: Mapping[str, Any]) -> bool | None:
    """Return whether DICOM is to be written, None where nobody has said."""
    if given["dicom"] is None:
        return None
    if given["to"] == "label":
        return one_of("dicom", given["dicom"].lower(), ("true", "false", *STRUCTURES)) != "false"
    return true_or_false("dicom", given["dicom"])


def _structures(given: Mapping[str, Any]) -> str | None:
    """Return the kind of object that labels are written as, None where none is named."""
    return given["dicom"] if given["to"] == "label" and given["dicom"] in STRUCTURES else None


def _doses(given: Mapping[str, Any], kind: str) -> Carrier:
    """Return what carries doses; its lines tell what lies outside, and what else is to be known."""
    if not given["files"]:
        refuse("doses need files: name an RTDOSE or an image of a dose")
    rule = one_of("rule", given["rule"] or DOSE_RULES[0], DOSE_RULES)
    add = given["sum"] is not None and true_or_false("sum", given["sum"])
    how = {"rule": rule, "add": add, "dicom": _of_dicom(given), **_object(given)}

    def carry(opened: Applied, paths: list[Path], target: Path) -> list[Any]:
        """Carry doses."""
        from ncf.use.dose import carry_doses

        made, lines = carry_doses(opened, paths, target, **how)
        return [*lines, *made]

    return carry


def _points(given: Mapping[str, Any], kind: str) -> Carrier:
    """Return what carries points; its first line tells how many lie outside the range of the map."""
    if given["from"] is None or not given["files"]:
        refuse("points need files, and --from=fixed or --from=moving: where they are")
    side = one_of("from", given["from"], SIDES)
    space = None if given["space"] is None else one_of("space", given["space"], SPACES)

    def carry(opened: Applied, paths: list[Path], target: Path) -> list[Any]:
        """Carry points."""
        from ncf.use.carry import apply_to_points

        written, outside = apply_to_points(opened, paths, target, side=side, space=space)
        lie = "point lies" if outside == 1 else "points lie"
        told = f"{outside} {lie} outside the range of the map, marked as such" if outside else "all points are known"
        return [told, *written]

    return carry


def _volumes(given: Mapping[str, Any], kind: str) -> Carrier:
    """Return what carries scans or label maps, by default the registered one; lines tell volumes of structures."""
    modes, registered = MODES[kind], "moving" if kind == "image" else "moving_label"
    mode = modes[one_of("interpolation", given["interpolation"] or next(iter(modes)), tuple(modes))]
    wanted = [] if given["labels"] is None else [second for _, second in or_refused(sides_of, given["labels"])]
    series, told = _of_dicom(given), _object(given)

    def carry(opened: Applied, paths: list[Path], target: Path) -> list[Any]:
        """Carry scans or label maps."""
        files = paths or [opened.registered(registered)]
        if series:
            from ncf.use.dicom import carry_series, carry_structures

            if kind == "label":
                own = _structures(given)
                made, lines = carry_structures(opened, files, target, kind=own, mode=mode, wanted=wanted, **told)
                return [*lines, *made]
            return list(carry_series(opened, files, target, mode=mode, **told))
        named = target if given["warped"] is not None else None
        if kind == "label":
            from ncf.use.carry_labels import apply_to_labels

            made, lines = apply_to_labels(opened, files, target, mode=mode, wanted=wanted, named=named)
            return [*lines, *made]
        from ncf.use.carry import apply_to_images

        return list(apply_to_images(opened, files, target, mode=mode, named=named))

    return carry


def _object(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return whose study a DICOM object belongs to, and whether it tells the patient."""
    onto = given_paths(reference=given["reference"]).get("reference")
    return {"reference": onto, "anonymous": true_or_false("anonymous", given["anonymous"])}
