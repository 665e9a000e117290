"""Names of results from names of files."""

from __future__ import annotations

import pytest

from scripts.names import pair_name


@pytest.mark.parametrize(
    ("fixed", "moving", "name"),
    [
        ("a/image.nii.gz", "b/image.nii.gz", "image__image"),
        ("x/Fix.NII.GZ", "y.v2.mhd", "Fix__y.v2"),
        ("dicom/series.1/", "dicom/series.2", "series.1__series.2"),
        ("$(rm) a&b.nrrd", "@x:y.mha", "__rm__a_b___x_y"),
        ("größe.nii", ".hidden.nii", "größe__hidden"),
    ],
)
def test_pair_name(fixed: str, moving: str, name: str) -> None:
    assert pair_name(fixed, moving) == name
