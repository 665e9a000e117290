"""One case from two DICOM folders: the organs drawn in the planning scan are carried over to today's scan.

python docs/examples/dicom_case.py TODAY PLANNING ORGANS OUTPUT

TODAY and PLANNING are folders with one DICOM series each, ORGANS is a label map on the planning scan's grid, OUTPUT a
folder that is made. Everything that was written is opened again with SimpleITK, which carries the organs over again.
"""

import sys
from pathlib import Path

import numpy as np

try:
    import SimpleITK as sitk
except ImportError:
    sys.exit("this example opens what it wrote with SimpleITK: pip install SimpleITK")

from ncf.api.registration import register


def read_series(folder: str) -> sitk.Image:
    """The volume of the one DICOM series in a folder."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
    return reader.Execute()


def volumes_ml(label: sitk.Image) -> dict[int, float]:
    """The volume of every organ."""
    voxel_ml = float(np.prod(label.GetSpacing())) / 1000
    values, counts = np.unique(sitk.GetArrayViewFromImage(label), return_counts=True)
    return {int(value): count * voxel_ml for value, count in zip(values, counts, strict=True) if value}


def carry_over(today: str, planning: str, organs: str, output: str, preset: str | None = None) -> float:
    """The share of voxels at which the saved organs agree with SimpleITK's own use of the saved map."""
    fixed, moving, drawn = read_series(today), read_series(planning), sitk.ReadImage(organs)
    result = register(fixed, moving, moving_label=drawn, preset=preset)
    folder = Path(result.save(output))

    carried = sitk.ReadImage(folder / "warped_label.nii.gz")
    field = sitk.ReadImage(folder / "displacement.nii.gz", sitk.sitkVectorFloat64)
    again = sitk.Resample(drawn, fixed, sitk.DisplacementFieldTransform(field), sitk.sitkNearestNeighbor, 0)
    agree = float(np.mean(sitk.GetArrayViewFromImage(carried) == sitk.GetArrayViewFromImage(again)))

    alike, folds = result.metrics["similarity"], result.metrics["folding_fraction"]["all"]
    print(
        f"correlation {alike['before']['ncc']:.3f} before, {alike['after']['ncc']:.3f} after; folds {100 * folds:.3f} %"
    )
    before, after = volumes_ml(drawn), volumes_ml(carried)
    for organ, volume in before.items():
        print(f"organ {organ}: {volume:.0f} ml in the planning scan, {after.get(organ, 0):.0f} ml today")
    print(f"SimpleITK carries {100 * agree:.2f} % of the voxels to the same organ; files in {folder}")
    return agree


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(f"usage: python {sys.argv[0]} TODAY PLANNING ORGANS OUTPUT")
    carry_over(*sys.argv[1:])
