"""Every entry of the tables: a format comes back, a preset is a config, help and docs have a row for it."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.bundle import ConfigParser
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from ncf.commands.help import TABLES, help_of
from ncf.commands.main import VERBS
from ncf.core.errors import PairError
from ncf.core.presets import BASE, config, config_files, presets
from ncf.io.dicom.written.table import DICOM_OBJECTS
from ncf.io.fields.base import FieldToSave
from ncf.io.fields.table import field_formats, field_suffixes, load_map
from ncf.io.points.table import point_formats, read_points_file
from ncf.space.jacobian import jacobian_determinant
from tests.bundles import ROOT
from tests.dicom_pair import of_two_series
from tests.maps import MOVING, SHAPE, points_in, smooth_map, through_itk

POINT_MM = 1e-3  # float32 displacements
AFFINE = np.eye(4)
AFFINE[:3] = np.hstack([1.1 * Rotation.from_euler("xyz", (10, -5, 20), degrees=True).as_matrix(), [[4], [-3], [7]]])
SCANS = ("lungs_0001_0000", "lungs_0001_0001")  # as Learn2Reg calls them


def rows(page: str) -> list[list[str]]:
    """The cells of all table rows of a page of docs/, without the marks of code."""
    lines = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")
    ]


@pytest.mark.parametrize("name", field_formats())
def test_a_format_of_fields_is_written_and_comes_back(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    entry, mapping = field_formats()[name], smooth_map("oblique")
    stem = "field" if entry.stem is None else entry.stem(*SCANS, entry.namings[0])
    path = tmp_path / f"{stem}{entry.suffix}"
    scans = of_two_series(tmp_path_factory.mktemp("scans")) if entry.of_scans else None
    whole = FieldToSave(mapping.field, mapping.grid, MOVING, AFFINE, scans)
    entry.save(path, whole)
    first = path.read_bytes()
    entry.save(path, whole)
    assert first and path.read_bytes() == first and [p.name for p in tmp_path.iterdir()] == [path.name]
    if entry.load is not None:
        points = points_in(SHAPE, mapping.grid.affine)
        for found in (entry.load(path), load_map(path)):
            np.testing.assert_allclose(found.to_moving(points)[0], mapping.to_moving(points)[0], atol=POINT_MM)
    assert (entry.load is None) == (not entry.reads) and (entry.stem is None) == (not entry.namings)
    if entry.collect is not None:
        assert entry.collect(tmp_path).stat().st_size


def test_a_composite_has_its_parts_apart(tmp_path: Path) -> None:
    mapping, path = smooth_map("oblique"), tmp_path / "x.composite.h5"
    entry = field_formats()["composite"]
    entry.save(path, FieldToSave(mapping.field, mapping.grid, MOVING, AFFINE))
    points = points_in(SHAPE, mapping.grid.affine)
    there = mapping.to_moving(points)[0]
    composite = sitk.CompositeTransform(sitk.ReadTransform(str(path)))
    np.testing.assert_allclose(through_itk(composite, points), there, atol=POINT_MM)
    affine, rest = (composite.GetNthTransform(n) for n in range(composite.GetNumberOfTransforms()))
    np.testing.assert_allclose(through_itk(affine, points), apply_affine(AFFINE, points), atol=1e-6)
    undone = apply_affine(np.linalg.inv(AFFINE), there)
    np.testing.assert_allclose(through_itk(rest, points), undone, atol=POINT_MM)
    with pytest.raises(PairError, match="does not say its affine part; export a result folder"):
        entry.save(path, FieldToSave(mapping.field, mapping.grid, MOVING))


def test_the_jacobian_is_that_of_the_map(tmp_path: Path) -> None:
    mapping = smooth_map("lps")
    field_formats()["jacobian"].save(tmp_path / "j.nii.gz", FieldToSave(mapping.field, mapping.grid, None))
    image = nib.load(tmp_path / "j.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), jacobian_determinant(mapping.field).numpy(), atol=1e-6)
    np.testing.assert_allclose(image.affine, mapping.grid.affine, atol=1e-5)


def test_no_suffix_has_two_readers() -> None:
    suffixes = field_suffixes()
    assert len(set(suffixes)) == len(suffixes) and all(s == s.lower() and s.startswith(".") for s in suffixes)
    points = [suffix for entry in point_formats().values() for suffix in entry.suffixes]
    assert len(set(points)) == len(points)


def test_a_table_refuses_two_entries_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from ncf.io.fields import jacobian, nifti_field

    field_formats.cache_clear()
    monkeypatch.setattr(jacobian, "FORMATS", (replace(nifti_field.FORMATS[0]),))
    with pytest.raises(ValueError, match=r"ncf\.io\.fields: two formats are called nii\.gz"):
        field_formats()
    field_formats.cache_clear()


@pytest.mark.parametrize("name", point_formats())
def test_a_format_of_points_is_read_by_its_suffixes(tmp_path: Path, name: str) -> None:
    entry = point_formats()[name]
    for suffix in entry.suffixes:
        with pytest.raises(ValueError, match=f"cannot read .*missing{suffix}"):
            read_points_file(tmp_path / f"missing{suffix}", entry.spaces[0] if entry.spaces else None)


def test_the_docs_have_a_row_for_every_format() -> None:
    told = rows("formats")
    for name, entry in field_formats().items():
        assert [name, entry.suffix, entry.sentence, ", ".join(entry.reads) or "no"] in told, (
            f"docs/formats.md lacks {name}"
        )
    for name, made in DICOM_OBJECTS.items():
        assert [name, made.suffix, made.sentence] in told, f"docs/formats.md lacks {name}"
    for name, points in point_formats().items():
        row = [name, ", ".join(points.suffixes), points.sentence, ", ".join(points.spaces) or "its own"]
        assert row in told, f"docs/formats.md lacks {name}"


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_told_of_and_is_a_config(name: str) -> None:
    preset = presets()[name]
    assert preset.sentence.endswith((".", ".md")) and [name, preset.sentence] in rows("presets")
    overlay = json.loads(preset.path.read_text(encoding="utf-8"))
    base = ConfigParser()
    base.read_config(config(BASE))
    known = set(base.config["fit"]["levels"])
    assert overlay and config_files(name) == (config(BASE), str(preset.path))
    parser = ConfigParser()
    parser.read_config(list(config_files(name)))
    parser["progress"] = False
    levels = parser.get_parsed_content("inferer").levels
    assert levels and (set(levels) <= known or "fit::levels" in overlay)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_shows_every_option_and_table(verb: str) -> None:
    text = help_of(verb, VERBS[verb])
    for parameter in inspect.signature(VERBS[verb]).parameters.values():
        option = (
            f"--{parameter.name.removesuffix('_')}: "
            if parameter.kind is parameter.KEYWORD_ONLY
            else f"{parameter.name}: "
        )
        assert option in text, f"the docstring of {verb} does not explain {parameter.name}"
    words = " ".join(text.split())  # long sentences go on in the next line
    for title, table in TABLES.get(verb, {}).items():
        assert f"{title}:" in words and all(name in words and sentence in words for name, sentence in table())
