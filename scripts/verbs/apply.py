"""``ncf apply``: scans, label maps and points carried by a saved map."""

from __future__ import annotations

from fire.decorators import SetParseFn

from scripts.verbs.common import CallJob, absolute, one_of, refuse

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
    from_: str | None = None,
    space: str | None = None,
    moving: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> CallJob:
    """Carry FILES through the map of RESULT: what lies in the moving scan's space onto a grid, or points to the other side.

    Args:
        result: a result folder, its network.pt, or a field's file: .nii.gz, .nrrd, .mha, .h5, .tfm.
        files: scans, label maps or points; for image and label by default those of the moving side that were registered.
        to: image, label or points: what the files are.
        output_dir: where the files go, under their own names; images and labels become .nii.gz.
        reference: a scan whose grid images and labels go onto; by default the fixed scan's.
        interpolation: linear (the default) or cubic for images, nearest (the default) or soft for labels.
        from: where the points are, fixed or moving; for points only, and never guessed.
        space: of the numbers in a CSV or a mesh: lps, ras (mm) or voxel. Slicer's files name their own.
        moving: a scan on the moving grid, for voxel indices where RESULT is a field's file.
        before: 4x4 affine (rows of a text file, RAS mm, or an ITK transform) that a reference point goes through first.
        after: another that the moving point goes through last.
    """
    kind = one_of("to", to, (*MODES, "points"))
    _belong({"from": from_, "space": space, "moving": moving}, kind == "points", "--to=points")
    _belong({"interpolation": interpolation, "reference": reference}, kind != "points", "--to=image and --to=label")
    side = None if from_ is None else one_of("from", from_, SIDES)
    if kind == "points" and (side is None or not files):
        refuse("points need files, and --from=fixed or --from=moving: where they are")
    chosen = None if space is None else one_of("space", space, SPACES)
    modes = MODES.get(kind, {"": ""})
    mode = modes[one_of("interpolation", interpolation or next(iter(modes)), tuple(modes))]
    source, target = absolute("result", result), absolute("output_dir", output_dir)
    paths = [absolute("files", file) for file in files]
    others = {"reference": reference, "moving": moving, "before": before, "after": after}
    given = {key: absolute(key, value) for key, value in others.items() if value is not None}

    def call() -> None:
        from scripts.apply import apply_to_images, apply_to_points, open_map  # takes seconds to import

        opened = open_map(source, **given)
        if side is not None:
            written, outside = apply_to_points(opened, paths, target, side=side, space=chosen)
            lie = "point lies" if outside == 1 else "points lie"
            print(f"{outside} {lie} outside the range of the map, marked as such" if outside else "all points are known")
        else:
            registered = "moving" if kind == "image" else "moving_label"
            written = apply_to_images(opened, paths or [opened.registered(registered)], target, mode=mode)
        print("\n".join(map(str, written)))

    return CallJob(call, output_dir=target)


def _belong(options: dict[str, str | None], fits: bool, where: str) -> None:
    """Nothing; refuses options that were given for another kind of file."""
    wrong = next((name for name, value in options.items() if value is not None and not fits), None)
    if wrong is not None:
        refuse(f"--{wrong} is for {where}")
