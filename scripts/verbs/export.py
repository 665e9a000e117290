"""``ncf export``: results as the files of other programs."""

from __future__ import annotations

from fire.decorators import SetParseFn

from scripts.verbs.common import CallJob, absolute, one_of, refuse

LEARN2REG = ("learn2reg", "learn2reg2021")
ITK = ("nii.gz", "nrrd", "mha", "h5", "tfm")


@SetParseFn(str)
def export(results: str, *, output_dir: str, format: str = "learn2reg", names: str | None = None) -> CallJob:
    """Write RESULTS, a result folder or a folder of such, in the format of another program.

    Args:
        results: what register or cohort wrote.
        output_dir: where the files go; of Learn2Reg's, with submission.zip of them all.
        format: learn2reg (disp_*.nii.gz), learn2reg2021 (the half resolution npz of 2020 and 2021); the field for ITK,
            SimpleITK, 3D Slicer and ANTs as an image (nii.gz, nrrd, mha) or a transform (h5, tfm); or jacobian, the map's
            local change of volume as an image.
        names: of Learn2Reg's files: auto (the default), short (disp_0001_0001) or long (disp_0001_0000_0001_0001).
    """
    folder, target = absolute("results", results), absolute("output_dir", output_dir)
    kind = one_of("format", format, (*LEARN2REG, *ITK, "jacobian"))
    if names is not None and kind not in LEARN2REG:
        refuse("--names is for Learn2Reg's formats")
    chosen = one_of("names", names or "auto", ("auto", "short", "long"))

    def call() -> None:
        from scripts.convert import export_itk, export_jacobian, export_learn2reg  # takes seconds to import
        from scripts.saved import saved_results

        found = saved_results(folder)
        if kind == "jacobian":
            files = export_jacobian(found, target)
        elif kind in ITK:
            files = export_itk(found, target, kind=kind)
        else:
            files = export_learn2reg(found, target, kind=kind, names=chosen)
        print("\n".join(str(path) for path in files))

    return CallJob(call)
