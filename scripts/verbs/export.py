"""``ncf export``: results as the files of other programs."""

from __future__ import annotations

from fire.decorators import SetParseFn

from scripts.verbs.common import CallJob, absolute, one_of, refuse

LEARN2REG = ("learn2reg", "learn2reg2021")
MAPS = ("nii.gz", "nrrd", "mha", "h5", "tfm", "jacobian")


@SetParseFn(str)
def export(
    results: str,
    *,
    output_dir: str,
    format: str = "learn2reg",
    names: str | None = None,
    reference: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> CallJob:
    """Write RESULTS, a result folder, a folder of such, or a map's file, in the format of another program.

    Args:
        results: what register or cohort wrote; but for Learn2Reg also a network.pt, or a field's file: .nii.gz, .nrrd,
            .mha, .h5, .tfm.
        output_dir: where the files go; of Learn2Reg's, with submission.zip of them all.
        format: learn2reg (disp_*.nii.gz), learn2reg2021 (the half resolution npz of 2020 and 2021); the field for ITK,
            SimpleITK, 3D Slicer and ANTs as an image (nii.gz, nrrd, mha) or a transform (h5, tfm); or jacobian, the map's
            local change of volume as an image.
        names: of Learn2Reg's files: auto (the default), short (disp_0001_0001) or long (disp_0001_0000_0001_0001).
        reference: a scan whose grid the field lies on; by default that of RESULTS.
        before: 4x4 affine (rows of a text file, RAS mm, or an ITK transform) that a fixed point goes through first.
        after: another that the moving point goes through last; both become part of the field.
    """
    source, target = absolute("results", results), absolute("output_dir", output_dir)
    kind = one_of("format", format, (*LEARN2REG, *MAPS))
    others = {"reference": reference, "before": before, "after": after}
    given = {key: absolute(key, value) for key, value in others.items() if value is not None}
    if names is not None and kind not in LEARN2REG:
        refuse("--names is for Learn2Reg's formats")
    if given and kind in LEARN2REG:
        refuse(f"--{next(iter(given))} is not for Learn2Reg's formats")
    chosen = one_of("names", names or "auto", ("auto", "short", "long"))

    def call() -> None:
        from scripts.convert import export_learn2reg, export_maps  # takes seconds to import
        from scripts.saved import saved_results
        from scripts.summary import percent

        if kind in LEARN2REG:
            files = export_learn2reg(saved_results(source), target, kind=kind, names=chosen)
        else:
            known = export_maps(source, target, kind=kind, **given)
            files = list(known)
            for path, share in known.items():
                if share < 1:
                    where = f"{percent(1 - share)} of its voxels lie outside the range of the map"
                    print(f"{path.name}: {where}; there the displacement of its border is carried on")
        print("\n".join(str(path) for path in files))

    return CallJob(call, output_dir=target)
