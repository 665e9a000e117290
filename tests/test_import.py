"""Fields of other programs, imported: folders that count as results, with the field unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ncf.commands.import_fields import import_fields
from ncf.core.files import sha256_of
from ncf.io.learn2reg import save_displacement, to_stored
from ncf.io.nifti import save_itk_field
from ncf.phantom.chest import PhantomPair
from ncf.result.folder import saved_pairs, saved_results

STORED_VOX = 2e-5  # float32 on the way there and back, over coordinates of up to 30
HALF_VOX = 0.1  # half the resolution in half precision, of motion that bends within a few voxels here


@pytest.fixture
def listed(pair: dict[str, str], tmp_path: Path) -> Path:
    """The chest, under names of Learn2Reg."""
    names = {"fixed": "Chest_0001_0000.nii.gz", "moving": "Chest_0001_0001.nii.gz"}
    for key, name in names.items():
        (tmp_path / name).write_bytes(Path(pair[key]).read_bytes())
    (tmp_path / "list.json").write_text(json.dumps({"pairs": [{"name": "chest", **names}]}), encoding="utf-8")
    return tmp_path / "list.json"


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("disp_0001_0001.nii.gz", STORED_VOX), ("disp_0001_0001.npz", HALF_VOX), ("chest.nii.gz", 0)],
)
def test_a_field_comes_back_as_a_result(
    name: str, tolerance: float, chest: PhantomPair, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = to_stored(torch.from_numpy(chest.field_vox), fixed_affine=chest.affine, moving_affine=chest.moving_affine)
    fields, out = tmp_path / "fields", tmp_path / "out"
    fields.mkdir()
    if name == "chest.nii.gz":
        save_itk_field(fields / name, chest.field_vox, chest.affine)
        sitk.WriteImage(sitk.ReadImage(str(fields / name), sitk.sitkVectorFloat32), str(fields / name))
    else:
        save_displacement(fields / name, stored)
    import_fields(str(fields), pairs=str(listed), output_dir=str(out), progress="false").start()
    assert str(out / "chest") in capsys.readouterr().out
    (result,) = saved_results(out)
    field, affine = result.field()
    np.testing.assert_allclose(affine, chest.affine, atol=1e-5)
    inner = np.s_[:, 2:-2, 2:-2, 2:-2] if tolerance == HALF_VOX else np.s_[:]
    np.testing.assert_allclose(field.numpy()[inner], chest.field_vox[inner], atol=max(tolerance, STORED_VOX))
    assert result.run["imported"]["sha256"] == sha256_of(fields / name)
    np.testing.assert_allclose(result.grid("moving").affine, chest.moving_affine)
    assert result.grid("moving").shape == chest.moving.shape
    assert saved_pairs(out) == [{"name": "chest", **{key: str(path) for key, path in result.inputs.items()}}]


def test_what_cannot_be_imported_is_said(chest: PhantomPair, listed: Path, tmp_path: Path) -> None:
    fields, out = tmp_path / "fields", tmp_path / "out"
    fields.mkdir()
    with pytest.raises(SystemExit, match=r"^error: chest: no field in"):
        import_fields(str(fields), pairs=str(listed), output_dir=str(out), progress="false").start()
    save_itk_field(fields / "chest.nii.gz", chest.field_vox, chest.affine)
    (out / "chest").mkdir(parents=True)
    (out / "chest" / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"^error: .*chest holds a registration of ours"):
        import_fields(str(fields), pairs=str(listed), output_dir=str(out), progress="false").start()
    assert [path.name for path in (out / "chest").iterdir()] == ["metrics.json"]
    with pytest.raises(SystemExit, match=r"^error: cannot read .*gone: No such file"):
        import_fields(str(tmp_path / "gone"), pairs=str(listed), output_dir=str(out))
    with pytest.raises(SystemExit, match=r"^error: no data set"):
        import_fields(str(fields), pairs=str(tmp_path / "gone.csv"), output_dir=str(out))
