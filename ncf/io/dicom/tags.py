"""Tags that tell the volumes of one series apart: stacks, times, echoes, b-values, kinds of image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ncf.core.packages import optional
from ncf.io.dicom.stack import Plane


class Telling(NamedTuple):
    """A tag, and the sequences that it stands in where frames have groups of their own."""

    word: str
    macro: tuple[str, ...] = ()


CONTENT, DIFFUSION = ("FrameContentSequence",), ("MRDiffusionSequence",)
# by their values; the first that splits a series into whole volumes counts
TELLING = (
    Telling("StackID", CONTENT),
    Telling("TemporalPositionIndex", CONTENT),
    Telling("TemporalPositionIdentifier"),
    Telling("EchoTime"),
    Telling("EffectiveEchoTime", ("MREchoSequence",)),
    Telling("EchoNumbers"),
    Telling("DiffusionBValue", DIFFUSION),
    Telling("DiffusionGradientOrientation", (*DIFFUSION, "DiffusionGradientDirectionSequence")),
    Telling("InversionTime"),
    Telling("FlipAngle"),
    Telling("NominalPercentageOfCardiacPhase", ("CardiacSynchronizationSequence",)),
    Telling("NominalCardiacTriggerDelayTime", ("CardiacSynchronizationSequence",)),
    Telling("ImageType"),
    Telling("FrameType", ("MRImageFrameTypeSequence",)),
    Telling("FrameType", ("CTImageFrameTypeSequence",)),
    Telling("FrameType", ("PETFrameTypeSequence",)),
    Telling("ComplexImageComponent", ("MRImageFrameTypeSequence",)),
    Telling("AcquisitionNumber"),
    Telling("FrameAcquisitionNumber", CONTENT),
    Telling("TriggerTime"),
    Telling("FrameReferenceTime"),
    Telling("AcquisitionDateTime"),
    Telling("AcquisitionTime"),
    Telling("KVP"),
    Telling("ConvolutionKernel"),
)
# by their order at each place: every slice has a time of its own
IN_ORDER = (
    Telling("TriggerTime"),
    Telling("FrameReferenceTime"),
    Telling("FrameAcquisitionDateTime", CONTENT),
    Telling("AcquisitionDateTime"),
    Telling("AcquisitionTime"),
    Telling("ContentTime"),
)
TELLING_TAGS = tuple(dict.fromkeys(word for tag in (*TELLING, *IN_ORDER) for word in (tag.word, *tag.macro[:1])))
INDEX = "DimensionIndexValues"


def told(word: str, macro: Sequence[str], groups: Iterable[Any]) -> Any:
    """Return the value of an attribute in the first group that has it, directly or in its macro; None without any.

    Args:
        word: its keyword.
        macro: keywords of the sequences that it stands in, from outside.
        groups: pydicom data sets.
    """
    for group in groups:
        inner = group
        for name in macro:
            items = inner.get(name) if inner is not None else None
            inner = items[0] if items else None
        for place in (inner, group):
            value = None if place is None else place.get(word)
            if value is not None and str(value) != "":
                return value
    return None


def value_of(plane: Plane, tag: Telling) -> Any:
    """Return the value of a tag for a plane as something that can be compared: numbers, words, or nothing."""
    try:
        return comparable(told(tag.word, tag.macro, plane.groups))
    except Exception:  # a damaged value within a sequence, which pydicom converts only now, tells nothing
        return ()


def comparable(value: Any) -> tuple[Any, ...]:
    """Return a value of pydicom as a tuple that sorts: numbers before words, nothing first."""
    if value is None:
        return ()
    several = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else list(value)
    found: list[Any] = []
    for one in several:
        try:
            found.append((0, float(one), ""))
        except (TypeError, ValueError):
            found.append((1, 0.0, str(one)))
    return tuple(found)


def in_words(value: tuple[Any, ...]) -> str:
    """Return what `comparable` made as a text."""
    return "\\".join(text or f"{number:.10g}" for _, number, text in value) or "none"


def dimensions(planes: Sequence[Plane]) -> list[tuple[str, list[Any]]]:
    """Return the indices that an enhanced file counts its frames by, each with its name and a value for every plane."""
    rows = [value_of(plane, Telling(INDEX, CONTENT)) for plane in planes]
    length = min(map(len, rows))
    pointers = [item.get("DimensionIndexPointer") for item in planes[0].groups[-1].get("DimensionIndexSequence") or ()]
    names = [_name(pointers[n]) if n < len(pointers) else str(n + 1) for n in range(length)]
    return [(name, [(row[n],) for row in rows]) for n, name in enumerate(names)]


def _name(pointer: Any) -> str:
    """Return the keyword of a tag, else the tag."""
    datadict = optional("pydicom", "pydicom.datadict")
    return str(datadict.keyword_for_tag(pointer) if pointer is not None else "") or str(pointer)
