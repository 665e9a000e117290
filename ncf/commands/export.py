"""``ncf export``: results as the files of other programs."""

from __future__ import annotations

from pathlib import Path

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, given_paths, one_of, refuse, true_or_false
from ncf.io.dicom.written.table import DICOM_OBJECTS
from ncf.io.fields.table import field_formats

DEFAULT_FORMAT = "learn2reg"


@SetParseFn(str)
def export(
    results: str,
    *,
    output_dir: str,
    format: str = DEFAULT_FORMAT,
    names: str | None = None,
    reference: str | None = None,
    moving: str | None = None,
    pre_transform: str | None = None,
    post_transform: str | None = None,
    anonymous: str = "false",
) -> CallJob:
    """Write RESULTS, a result folder, a folder of such, or a map's file, in the format of another program.

    Args:
        results: what register or cohort wrote; for formats other than Learn2Reg also a network.pt, or a field's file.
        output_dir: where the files go.
        format: one of the formats below; learn2reg by default.
        names: of Learn2Reg's files: auto (the default), short (disp_0001_0001) or long (disp_0001_0000_0001_0001).
        reference: a scan whose grid the field lies on; by default that of RESULTS. For DICOM the fixed scan's series.
        moving: for DICOM, the moving scan's series; by default the one that was registered.
        pre_transform: 4x4 affine of a fixed point, applied first: rows of a text file (RAS mm) or an ITK transform.
        post_transform: another affine, of the moving point, applied last; both become part of the field.
        anonymous: for DICOM, true writes objects without the patient's data, and with other UIDs.
    """
    source, target = absolute("results", results), absolute("output_dir", output_dir)
    formats = field_formats()
    kind = one_of("format", format, (*formats, *DICOM_OBJECTS))
    given = given_paths(reference=reference, pre_transform=pre_transform, post_transform=post_transform)
    series = given_paths(moving=moving)
    dicom = kind in DICOM_OBJECTS or formats[kind].of_scans
    hidden = true_or_false("anonymous", anonymous)
    if not dicom and (series or hidden):
        refuse(f"--{'moving' if series else 'anonymous'} is for DICOM, not for the format {kind}")
    namings = () if dicom else formats[kind].namings
    if names is not None and not namings:
        refuse(f"--names is not for the format {kind}")
    if given and namings:
        refuse(f"--{next(iter(given))} is not for the format {kind}, which keeps the scans' own grids")
    naming = one_of("names", names, namings) if names is not None else next(iter(namings), "")

    def call() -> None:
        """Write the files and print their paths."""
        if dicom:
            from ncf.use.dicom import export_dicom  # torch takes seconds to import

            print("\n".join(map(str, export_dicom(source, target, kind=kind, anonymous=hidden, **given, **series))))
        else:
            _fields(source, target, kind, naming, given)

    return CallJob(call, output_dir=target)


def _fields(source: Path, target: Path, kind: str, naming: str, given: dict[str, Path]) -> None:
    """Write fields, and say where a map was not known."""
    from ncf.core.words import percent
    from ncf.use.export import export_fields

    exported = export_fields(source, target, kind=kind, naming=naming, **given)
    for path, share in exported.files.items():
        if share < 1 and not naming:
            where = f"{percent(1 - share)} of its voxels lie outside the range of the map"
            print(f"{path.name}: {where}; there the displacement of its border is carried on")
    print("\n".join(map(str, [*exported.files, *([exported.collected] if exported.collected else [])])))
