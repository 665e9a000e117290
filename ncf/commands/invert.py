"""``ncf invert``: the map from the moving to the fixed scan."""

from __future__ import annotations

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, given_paths


@SetParseFn(str)
def invert(
    result: str,
    *,
    output_dir: str,
    moving: str | None = None,
    label: str | None = None,
    pre_transform: str | None = None,
    post_transform: str | None = None,
) -> CallJob:
    """Write the inverse of RESULT as a field on the moving grid, a mask of where it is known, and how exact it is.

    Args:
        result: a result folder, its network.pt, or a field's file.
        output_dir: where inverse.nii.gz, inverse_valid.nii.gz and inverse.json go.
        moving: a scan on the moving grid, where RESULT is a field's file; a result folder knows it.
        label: a label map on the fixed grid; errors are given inside and outside of it; by default the registered one.
        pre_transform: 4x4 affine of a fixed point, applied first: rows of a text file (RAS mm) or an ITK transform.
        post_transform: another affine, of the moving point, applied last. The inverse is that of all three.
    """
    source, target = absolute("result", result), absolute("output_dir", output_dir)
    mask = None if label is None else absolute("label", label)
    given = given_paths(moving=moving, pre_transform=pre_transform, post_transform=post_transform)

    def call() -> None:
        """Write the inverse and print how exact it is."""
        from ncf.use.carry import open_map
        from ncf.use.invert import invert_map, told

        written, errors = invert_map(open_map(source, **given), target, label=mask)
        print("\n".join([*told(errors), *map(str, written)]))

    return CallJob(call, output_dir=target)
