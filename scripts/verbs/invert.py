"""``ncf invert``: the map from the moving to the fixed scan."""

from __future__ import annotations

from fire.decorators import SetParseFn

from scripts.verbs.common import CallJob, absolute


@SetParseFn(str)
def invert(
    result: str,
    *,
    output_dir: str,
    moving: str | None = None,
    label: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> CallJob:
    """Write the inverse of RESULT as a field on the moving grid, a mask of where it is known, and how exact it is.

    Args:
        result: a result folder, its network.pt, or a field's file: .nii.gz, .nrrd, .mha, .h5, .tfm.
        output_dir: where inverse.nii.gz, inverse_valid.nii.gz and inverse.json go.
        moving: a scan on the moving grid, where RESULT is a field's file; a result folder knows it.
        label: label map on the fixed grid: errors are told inside and outside of it; by default the registered one.
        before: 4x4 affine (rows of a text file, RAS mm, or an ITK transform) that a fixed point goes through first.
        after: another that the moving point goes through last. The inverse is that of all three.
    """
    source, target = absolute("result", result), absolute("output_dir", output_dir)
    mask = None if label is None else absolute("label", label)
    others = {"moving": moving, "before": before, "after": after}
    given = {key: absolute(key, value) for key, value in others.items() if value is not None}

    def call() -> None:
        from scripts.apply import open_map  # takes seconds to import
        from scripts.inversion import invert_map, told

        written, errors = invert_map(open_map(source, **given), target, label=mask)
        print("\n".join([*told(errors), *map(str, written)]))

    return CallJob(call, output_dir=target)
