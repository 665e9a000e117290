"""The DICOM objects of a pair that has just been registered, beside its other files: the folder dicom/ of a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ncf.core.names import AFFINE, DICOM_FOLDER, RIGID
from ncf.io.dicom.written.between import between
from ncf.io.dicom.written.registration import save_grid, save_matrix
from ncf.io.dicom.written.segments import save_segments
from ncf.io.dicom.written.series import Warped, save_series
from ncf.io.dicom.written.structures import save_structures, structures_of
from ncf.io.label_files import table_of
from ncf.pair.keys import Pair, affine_of
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import in_type_of, planes_read

WHAT = "the folder dicom/"
WARPED, REGISTRATION, STRUCTURES, SEGMENTS = "warped", "registration.dcm", "rtstruct.dcm", "seg.dcm"


def write_objects(pair: Pair, folder: Path, *, anonymous: bool) -> None:
    """Write the warped series, the registration, and the carried structures where labels were given.

    Args:
        pair: measured; both scans are DICOM series.
        folder: of the result.
        anonymous: objects tell no patient.

    Raises:
        PairError: a scan is no DICOM series, the scans are of two patients, or a file cannot be written.
    """
    scans = between(pair["files"]["fixed"], pair["files"]["moving"], anonymous=anonymous, what=WHAT)
    target = folder / DICOM_FOLDER
    (target / WARPED).mkdir(parents=True)
    fit, grids = pair["pred"], [Grid(tuple(i.shape[1:]), affine_of(i)) for i in (pair["fixed"], pair["moving"])]
    own = scans.require_grid(grids[0])
    field = fit.field_vox[0].detach().cpu()
    read = planes_read(SpatialMap(field, grids[0]), moving=grids[1], reference=grids[0])
    values = np.asarray(in_type_of(pair["warped"], pair["moving"])).reshape(own.shape)
    warped = Warped(values, own, read)
    save_series(target / WARPED, warped, fixed=scans.fixed, moving=scans.moving, anonymous=anonymous)
    if fit.transform in (RIGID, AFFINE):
        save_matrix(target / REGISTRATION, fit.space.initial, scans)
    else:
        save_grid(target / REGISTRATION, field, own, scans)
    if "warped_label" in pair and bool((pair["warped_label"] > 0).any()):
        codes = pair["warped_label"].round().int().cpu().numpy().reshape(own.shape)
        structures = structures_of(codes, table_of(pair["moving_label"]))
        save_structures(target / STRUCTURES, structures, scans)
        save_segments(target / SEGMENTS, structures, scans)
