"""Names of results from names of files, and the keys of a pair in the docs."""

from __future__ import annotations

import re

import pytest

from ncf.core.names import pair_name
from ncf.pair.keys import Pair
from tests.bundles import ROOT


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


def test_the_table_of_the_pairs_keys_is_whole() -> None:
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    table = page.partition("## The keys of a pair")[2]
    told = {
        key
        for line in table.splitlines()
        if line.startswith("| ")
        for key in re.findall(r"`(\w+)`", line.split("|")[2])
    }
    assert told == set(Pair.__annotations__)
