"""itk-elastix: translation, affine and B-spline, one after the other, each by elastix's own coarse-to-fine scheme.

``default``: the parameter maps that the package hands out; only the resampled image, which nobody asks for, is left
out.
``lung``: affine and B-spline for chest CT after what is published for lungs (Staring et al., Medical Physics 41(2),
2014: five resolutions, 10 mm final grid, 1000 iterations of adaptive stochastic gradient descent, 2000 new samples
each; Murphy et al., MICCAI 2008: mutual information).
``lung-nc``: the same with normalised correlation, as Staring has it.

On the real pair lung_ct_real ``lung`` left 1.47 mm and ``lung-nc`` 1.57 mm (5000 samples, 2000 iterations or a sixth
resolution did not bring it below 1.52). On lung_ct_semi_a, where both scans have equal intensities, they left 0.48 and
0.34 mm.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.common import HOW, LeftOutError, Stages, need, save_field

DEFAULT = ("translation", "affine", "bspline")
PRESETS = ("default", "lung", "lung-nc")
LUNG_METRIC = {"lung": "AdvancedMattesMutualInformation", "lung-nc": "AdvancedNormalizedCorrelation"}
RESOLUTIONS = 5
LUNG_SHARED = {
    "Registration": ["MultiResolutionRegistration"],
    "NumberOfResolutions": [str(RESOLUTIONS)],
    "MaximumNumberOfIterations": ["1000"],
    "NumberOfSpatialSamples": ["2000"],
    "MaximumNumberOfSamplingAttempts": ["50"],
}
LUNG_BSPLINE = {"FinalGridSpacingInPhysicalUnits": ["10"], "GridSpacingSchedule": ["8", "8", "4", "2", "1"]}


def parameters(itk: Any, preset: str) -> Any:
    """Return elastix's parameter object.

    Args:
        itk: the imported module.
        preset: of `PRESETS`.

    Raises:
        ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"elastix has the presets {', '.join(PRESETS)}, not {preset!r}")
    maps = itk.ParameterObject.New()
    for name in DEFAULT:
        map_ = maps.GetDefaultParameterMap(name)
        map_["WriteResultImage"] = ["false"]  # only the field is needed; a resampled image would cost seconds
        if preset != "default" and name != "translation":
            for key in [key for key in map_ if key.startswith("Metric")]:
                del map_[key]
            changes = {**LUNG_SHARED, "Metric": [LUNG_METRIC[preset]], **(LUNG_BSPLINE if name == "bspline" else {})}
            for key, value in changes.items():
                map_[key] = value
        maps.AddParameterMap(map_)
    return maps


def register(fixed: Path, moving: Path, field: Path, *, threads: int, preset: str) -> dict[str, Any]:
    """Register by elastix.

    Args:
        fixed: the fixed scan.
        moving: the moving scan.
        field: path of the field that is written.
        threads: that ITK may use.
        preset: of `PRESETS`.

    Returns:
        Version, device and seconds by stage.

    Raises:
        LeftOutError: itk-elastix is not installed.
    """
    itk, stage = need("itk", "itk-elastix"), Stages()
    if not hasattr(itk, "elastix_registration_method"):  # itk alone comes without it
        raise LeftOutError(f"itk-elastix is not installed: {HOW}")
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)
    with stage("reading"):
        target, source = itk.imread(str(fixed), itk.F), itk.imread(str(moving), itk.F)
    with stage("fitting"):
        # elastix's own option number_of_threads crashes 0.25.4 with the default B-spline, which has two metrics
        _, found = itk.elastix_registration_method(target, source, parameter_object=parameters(itk, preset))
    with stage("writing"), tempfile.TemporaryDirectory() as folder:
        vectors = itk.transformix_deformation_field(source, found, output_directory=folder)  # it writes a copy there
        lps_mm = np.moveaxis(itk.array_view_from_image(vectors), (0, 1, 2), (2, 1, 0))
        save_field(field, lps_mm, fixed=fixed)
    return {"version": version("itk-elastix"), "device": "cpu", "seconds": dict(stage)}
