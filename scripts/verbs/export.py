"""``ncf export``: results as the files of other programs."""

from __future__ import annotations

from fire.decorators import SetParseFn

from scripts.verbs.common import CallJob, absolute, one_of


@SetParseFn(str)
def export(results: str, *, output_dir: str, format: str = "learn2reg", names: str = "auto") -> CallJob:
    """Write RESULTS, a result folder or a folder of such, in the format of another program.

    Args:
        results: what register or cohort wrote.
        output_dir: where the files go, with submission.zip of them all.
        format: learn2reg (disp_*.nii.gz), or learn2reg2021 (the half resolution npz of 2020 and 2021).
        names: of Learn2Reg's files: auto, short (disp_0001_0001) or long (disp_0001_0000_0001_0001).
    """
    folder, target = absolute("results", results), absolute("output_dir", output_dir)
    kind = one_of("format", format, ("learn2reg", "learn2reg2021"))
    chosen = one_of("names", names, ("auto", "short", "long"))

    def call() -> None:
        from scripts.convert import export_learn2reg  # takes seconds to import
        from scripts.saved import saved_results

        files = export_learn2reg(saved_results(folder), target, kind=kind, names=chosen)
        print("\n".join(str(path) for path in files))

    return CallJob(call)
