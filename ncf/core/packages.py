"""Optional packages: what each is needed for, and the one line that a user reads where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from ncf.core.errors import PairError


class Package(NamedTuple):
    """One optional package.

    Attributes:
        extra: the extra of ncf-registration that installs it.
        needed_for: what needs it, as the subject of a sentence.
        otherwise: what to do without it.
    """

    extra: str
    needed_for: str
    otherwise: str


PACKAGES = {
    "itk": Package("itk", "MetaImage, NRRD and transforms by angles", "convert to NIfTI, or give a matrix"),
    "h5py": Package("itk", "ITK's .h5", "use .nii.gz"),
    "pydicom": Package("dicom", "DICOM", "convert to NIfTI"),
    "highdicom": Package("dicom", "DICOM segmentations", "choose rtstruct or nii.gz"),
    "vtk": Package("mesh", "Surface meshes", "carry their vertices as a CSV of points"),
    "SimpleITK": Package("sitk", "Images of SimpleITK", "hand over (array, affine)"),
    "distributed": Package("dask", "The engine dask", "use another engine"),
}


def optional(name: str, part: str | None = None) -> Any:
    """Import an optional package.

    Args:
        name: a key of `PACKAGES`.
        part: a module to import instead of the whole package, where the package is large.

    Returns:
        The module.

    Raises:
        PairError: the package is not installed; the message names the extra that installs it.
    """
    try:
        return import_module(part or name)
    except ImportError as error:
        package = PACKAGES[name]
        verb = "need" if " and " in package.needed_for or package.needed_for.endswith("s") else "needs"
        what = f"{package.needed_for} {verb} the package {name}, which is not installed"
        raise PairError(
            f"{what}: run pip install {name} (the extra {package.extra}), or {package.otherwise}"
        ) from error
