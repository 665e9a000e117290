"""Who and when: patient and study of the fixed scan, and the same without a patient.

Equal input gives equal bytes. No object tells when it was made: its dates are those of the scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ncf.core.files import write_whole
from ncf.core.packages import optional
from ncf.core.presets import version
from ncf.io.dicom.written.source import Scan
from ncf.io.dicom.written.uids import NO_DATE, NO_TIME, uid_of, without_traces

CHARACTERS = "ISO_IR 192"  # UTF-8
PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize",
    "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
)  # fmt: skip
STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyDescription")
NEEDED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip  # of type 2: present, if empty
NOBODY = {
    "PatientName": "ANONYMOUS", "PatientID": "ANONYMOUS", "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "written without patient data, UIDs replaced",
}  # fmt: skip
LONGEST = {"SH": 16, "LO": 64, "CS": 16, "ST": 1024}  # characters that a value may have
# body parts of which there are two: DICOM then asks for a side, or for an empty one
PAIRED = (
    "ANKLE", "ARM", "BREAST", "CALF", "CLAVICLE", "ELBOW", "EXTREMITY", "EYE", "FOOT", "FOREARM", "FINGER", "HAND",
    "HIP", "HUMERUS", "KNEE", "LEG", "LUNG", "RIB", "SHOULDER", "TIBIA", "TOE", "WRIST", "UPPERARM", "UPPERLEG",
    "LOWERLEG", "FEMUR", "THIGH",
)  # fmt: skip
NO_SERIAL = "0"  # a program has none, and some objects must name one
FAMILY, MODEL = "NCF", "ncf-registration"


def new_object(kind: str, fixed: Scan, *, modality: str, series: tuple[int, str], anonymous: bool) -> Any:
    """Return a data set with patient, study, series and equipment, to which an object adds its own.

    Args:
        kind: the SOP class UID.
        fixed: whose patient and study it belongs to.
        modality: of the series.
        series: its number and its description.
        anonymous: names no patient, no dates and no words of the fixed scan's.
    """
    data = optional("pydicom").Dataset()
    data.SpecificCharacterSet, data.SOPClassUID = CHARACTERS, kind
    if anonymous:
        for word, value in NOBODY.items():
            setattr(data, word, value)
        data.StudyDate, data.StudyTime = NO_DATE, NO_TIME
    else:
        copy_named(data, fixed.header, (*PATIENT, *STUDY))
    for word in NEEDED:
        if word not in data:
            setattr(data, word, "")
    data.StudyInstanceUID, data.FrameOfReferenceUID = fixed.study, fixed.frame
    told = fixed.header.get("PositionReferenceIndicator", "") or ""
    data.PositionReferenceIndicator = "" if anonymous else str(told)
    data.Modality, data.SeriesNumber, data.SeriesDescription = modality, series[0], series[1][: LONGEST["LO"]]
    data.InstanceNumber = 1
    data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = FAMILY, MODEL, version()
    return data


def set_side(data: Any) -> None:
    """Add a side, left empty where it is not known, unless the body part has none; then take it away.

    Args:
        data: of an object or plane, with its body part.
    """
    part = str(data.get("BodyPartExamined", "") or "")
    if part and part not in PAIRED:
        if "Laterality" in data:
            del data.Laterality
    elif "Laterality" not in data:
        data.Laterality = ""


def set_dates(data: Any, scans: Sequence[Scan], *, anonymous: bool) -> None:
    """Set ContentDate and ContentTime to the latest that the scans tell of themselves.

    Args:
        data: of the object.
        scans: that it is made of.
        anonymous: tells a fixed date.
    """
    told = [(NO_DATE, NO_TIME)]
    for scan in () if anonymous else scans:
        for word in ("Content", "Acquisition", "Series", "Study"):
            day, time = (str(scan.header.get(f"{word}{what}", "") or "") for what in ("Date", "Time"))
            if day:
                told.append((day, time or NO_TIME))
    data.ContentDate, data.ContentTime = max(told)


def copy_named(data: Any, header: Any, words: Sequence[str]) -> None:
    """Copy attributes by their keywords, where a header has a value: values cut to their length, nothing private.

    Args:
        data: gets them.
        header: has some.
        words: the keywords.
    """
    for word in words:
        element = header.get(word)
        value = header[word].value if element is not None else None
        if value is None or (isinstance(value, str) and not value):
            continue
        if header[word].VR == "SQ":
            setattr(data, word, deepcopy(list(value)))
            for item in getattr(data, word):
                item.remove_private_tags()
            continue
        longest = LONGEST.get(header[word].VR)
        if longest is not None:
            many = value if header[word].VM > 1 else [value]
            value = [str(one)[:longest] for one in many]
        setattr(data, word, str(value) if header[word].VR == "PN" else value)


def coded(value: str, meaning: str, scheme: str = "DCM") -> list[Any]:
    """Return a code sequence of one item.

    Args:
        value: the code.
        meaning: in words.
        scheme: that has the code.
    """
    item = optional("pydicom").Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def made_by() -> list[Any]:
    """Return the item of a ContributingEquipmentSequence that names this program."""
    item = optional("pydicom").Dataset()
    item.PurposeOfReferenceCodeSequence = coded("109103", "Modifying Equipment")
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = FAMILY, MODEL, version()
    return [item]


def identified(data: Any, *, anonymous: bool, pixels: bytes = b"") -> Any:
    """Give an object of one file the UIDs of its instance and its series, made of all its content.

    Args:
        data: the object, complete but for these.
        anonymous: replaces every UID that comes from a scan by one made of it.
        pixels: that belong to the content and are not in the data set yet.

    Returns:
        The same data set.
    """
    content = (data.to_json(bulk_data_threshold=2**62).encode(), *([pixels] if pixels else []))
    data.SeriesInstanceUID, data.SOPInstanceUID = uid_of("series", *content), uid_of("instance", *content)
    return without_traces(data) if anonymous else data


def save_object(path: Path, data: Any, *, implicit: bool = False) -> None:
    """Write an object as a DICOM file, little endian; equal objects give the same bytes.

    Args:
        path: of the file.
        data: with SOPClassUID and SOPInstanceUID.
        implicit: writes no types of values, for objects whose texts are longer than explicit types allow.

    Raises:
        PairError: the file cannot be written.
    """
    pydicom = optional("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid_of(MODEL), FAMILY
    data.file_meta = meta
    write_whole(path, lambda temporary: _saved(data, temporary))


def _saved(data: Any, path: Path) -> None:
    """Write a data set; raise what the disk raised, which pydicom wraps in several lines of its own."""
    try:
        data.save_as(path, enforce_file_format=True)
    except OSError as error:
        first: BaseException = error
        while isinstance(first.__cause__, OSError):
            first = first.__cause__
        raise first from None
