"""PET in SUV: by the formula where the tags tell everything, else as it is stored, and the note says which."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ncf.io.dicom.series import read_series
from ncf.io.dicom.suv import IN_SUV, suvbw_factor, unit_of_pet
from tests.dicom_files import write_dicom
from tests.test_reading import SHAPE, affine_of, volume

LATER = {"SeriesTime": "200000"}
WEIGHT_KG, DOSE_BQ, HALF_LIFE_S = 70.0, 350e6, 6586.2


def pet(**changed: object) -> Dataset:
    """A header of a PET scan that began an hour after the injection."""
    data, given = Dataset(), Dataset()
    given.RadiopharmaceuticalStartTime, given.RadionuclideTotalDose = "101500.00", str(DOSE_BQ)
    given.RadionuclideHalfLife = str(HALF_LIFE_S)
    data.Units, data.DecayCorrection, data.CorrectedImage = "BQML", "START", ["ATTN", "DECY", "SCAT"]
    data.SeriesDate = data.AcquisitionDate = "20200102"
    data.SeriesTime = data.AcquisitionTime = "111500.00"
    data.PatientWeight, data.Modality = str(WEIGHT_KG), "PT"
    data.RadiopharmaceuticalInformationSequence = Sequence([given])
    for word, value in changed.items():
        home = given if word in given or word == "RadiopharmaceuticalStartDateTime" else data
        if value is None:
            delattr(home, word)
        else:
            setattr(home, word, value)
    return data


def by_hand(decay_s: float) -> float:
    return WEIGHT_KG * 1000 / (DOSE_BQ * np.exp(-np.log(2) / HALF_LIFE_S * decay_s))


def test_the_formula() -> None:
    assert suvbw_factor(weight_kg=80, dose_bq=4e8, half_life_s=6000, decay_s=6000) == pytest.approx(80e3 / 2e8)
    for wrong in ({"weight_kg": 0}, {"dose_bq": -1}, {"half_life_s": float("nan")}, {"decay_s": -5}):
        with pytest.raises(ValueError, match="must be"):
            suvbw_factor(**({"weight_kg": 80.0, "dose_bq": 4e8, "half_life_s": 6e3, "decay_s": 0.0} | wrong))


@pytest.mark.parametrize(
    ("changed", "decay_s"),
    [
        ({}, 3600),
        ({"DecayCorrection": "ADMIN"}, 0),
        ({"SeriesTime": "003000", "AcquisitionTime": "003000", "RadiopharmaceuticalStartTime": "233000"}, 3600),
        ({"RadiopharmaceuticalStartDateTime": "20200102100000.50+0100"}, 4499.5),
        # made anew in the evening: the frame began 10 s after the scan, and its mean count rate is near 70 s
        (LATER | {"AcquisitionTime": "111510", "FrameReferenceTime": "70000", "ActualFrameDuration": "120000"}, 3600),
    ],
)
def test_the_time_of_decay(changed: dict[str, object], decay_s: float) -> None:
    unit = unit_of_pet([pet(**changed)])
    assert unit.note == IN_SUV and unit.factor == pytest.approx(by_hand(decay_s), rel=2e-5)


@pytest.mark.parametrize(
    ("changed", "telling"),
    [
        ({"PatientWeight": None}, "stays in Bq/ml, not in SUV: the tag PatientWeight is missing"),
        ({"PatientWeight": "0"}, "PatientWeight is 0"),
        ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose is missing"),
        ({"RadionuclideHalfLife": None}, "RadionuclideHalfLife is missing"),
        ({"RadiopharmaceuticalStartTime": None}, "RadiopharmaceuticalStartTime is missing"),
        ({"RadiopharmaceuticalInformationSequence": None}, "RadiopharmaceuticalInformationSequence is missing"),
        ({"CorrectedImage": ["ATTN"]}, "does not name DECY"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"SeriesTime": None}, "SeriesTime is missing"),
        ({"SeriesTime": "200000"}, "FrameReferenceTime or ActualFrameDuration is missing"),
        ({"RadiopharmaceuticalStartDateTime": "20191230101500"}, "73 hours before the scan"),
        ({"Units": None}, "the tag Units is missing"),
        ({"Units": "CNTS"}, "factors of Philips"),
        ({"Units": "PROPCPS"}, "Units is PROPCPS"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_changed(changed: dict[str, object], telling: str) -> None:
    unit = unit_of_pet([pet(**changed)])
    assert unit.factor == 1 and telling in unit.note


def private(creator: str, block: int, element: int, value: str, **changed: object) -> Dataset:
    data = pet(**changed)
    data.private_block(block, creator, create=True).add_new(element, "DS" if block != 9 else "DT", value)
    return data


def test_tags_of_vendors() -> None:
    philips = "Philips PET Private Group"
    assert unit_of_pet([private(philips, 0x7053, 0, "0.00125", Units="CNTS")]) == (0.00125, IN_SUV)
    counts = unit_of_pet([private(philips, 0x7053, 9, "2.5", Units="CNTS")])
    assert counts.factor == pytest.approx(2.5 * by_hand(3600))
    later = private("GEMS_PETD_01", 9, 0x0D, "20200102111500.00", SeriesTime="200000")
    assert unit_of_pet([later]).factor == pytest.approx(by_hand(3600))
    assert unit_of_pet([private("another", 0x7053, 0, "0.00125", Units="CNTS")]).factor == 1
    assert unit_of_pet([pet(Units="GML", SUVType="LBM")]) == (1, "PET in SUV (lean body mass), as it is stored")


@pytest.mark.parametrize("units", ["BQML", "PROPCPS"])
def test_a_series_is_read_in_suv(tmp_path: Path, units: str, caplog: pytest.LogCaptureFixture) -> None:
    def changed(data: Dataset, k: int) -> None:
        for element in pet(Units=units):
            data[element.tag] = element

    write: Callable[..., str] = write_dicom
    rescale = [(1.0 + 0.25 * k, 0.0) for k in range(SHAPE[2])]
    folder = write(tmp_path / "pet", abs(volume()), affine_of("RAS"), rescale=rescale, changed=changed)
    logging.getLogger("ncf.notes").propagate = True
    found, _, modality = read_series(folder, "moving")
    factor = by_hand(3600) if units == "BQML" else 1
    np.testing.assert_allclose(found, abs(volume()) * (1 + 0.25 * np.arange(SHAPE[2])) * factor, rtol=1e-5)
    assert modality == "PT" and (IN_SUV if units == "BQML" else "stay as they are") in caplog.text
