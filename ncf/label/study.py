"""The study folder as MONAI Label's datastore, closed to names that lead out of it.

A link in it is the way to keep a scan elsewhere. It is read through, but what it leads to is neither changed nor
deleted.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from ncf.core.errors import PairError
from ncf.core.names import DICOM_SUFFIX, image_stem
from ncf.label.dicom import is_image_file, is_label, is_scan, is_series, label_to_send, scan_to_send
from ncf.label.labels import names_of

SERVED_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
LISTED_SUFFIXES = (*SERVED_SUFFIXES, DICOM_SUFFIX)  # of what lies in the folder; uploads are of `SERVED_SUFFIXES`
OF_OURS = ("labels", "points", "registrations")  # folders in it that are no scans
POINTS, POINT_SUFFIXES = "points", (".mrk.json", ".fcsv")  # files of 3D Slicer, which say where their points lie
PLAIN = re.compile(r"[^./\\\0][^/\\\0]*")  # one part of a path, not hidden
SAVED = DefaultLabelTag.FINAL  # tag of labels that somebody saved; results of models have the tag "original"


class StudyFolder(LocalDatastore):
    """The scans of a folder and their labels.

    A scan is ``ID.nii.gz``, or the folder ``ID`` of a DICOM series, or ``ID.dcm`` with all its frames. Its label is
    ``labels/<tag>/ID.nii.gz``, or ``ID.dcm``, an RTSTRUCT or a SEG.

    Args:
        folder: of the scans.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in LISTED_SUFFIXES], auto_reload=True)

    def _to_id(self, file: str) -> tuple[str, str]:
        """Return id and suffix of a file; the folder of a series has no suffix."""
        suffix = next((suffix for suffix in LISTED_SUFFIXES if file.endswith(suffix)), "")
        return file.removesuffix(suffix), suffix

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        """Return what lies in the study folder or in a folder of labels, by name; of two of one id the last counts."""
        place = Path(path)
        files = [name for name in super()._list_files(path, patterns) if (place / name).is_file()]
        scans = place.resolve() == self.folder.resolve()
        own = is_scan if scans else is_label
        found = [name for name in files if not name.endswith(DICOM_SUFFIX) or own(place / name)]
        dicom_first = sorted(found, key=lambda name: not name.endswith(DICOM_SUFFIX))
        return {name: name for name in [*(self._series() if scans else ()), *dicom_first]}

    def _series(self) -> list[str]:
        """Return the folders of DICOM series."""
        folders = [p for p in sorted(self.folder.iterdir()) if p.is_dir() and PLAIN.fullmatch(p.name)]
        return [folder.name for folder in folders if folder.name not in OF_OURS and is_series(folder)]

    def list_images(self) -> list[str]:
        """Return every scan; MONAI Label watches files, so new folders are looked for here."""
        known = {scan for scan, held in self._datastore.objects.items() if not held.image.ext}
        files = {scan for scan, held in self._datastore.objects.items() if held.image.ext}
        if known != set(self._series()) - files:
            self.refresh()
        return list(super().list_images())

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy a scan into the folder.

        Args:
            image_id: of the scan; by default the name of its file.
            image_filename: the file.
            image_info: kept about it.

        Returns:
            Its id.

        Raises:
            PairError: the id is no plain name, or the file is no image.
        """
        suffix = _suffix("scan", image_filename)
        scan = plain_name("image", image_id or image_stem(image_filename))
        _let_go(self.folder / f"{scan}{suffix}")
        return str(super().add_image(scan, image_filename, image_info))

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Copy a label into ``labels/<tag>/``.

        Args:
            image_id: of the scan.
            label_filename: the file.
            label_tag: of the label.
            label_info: kept about it.

        Returns:
            Its id.

        Raises:
            PairError: the tag is no plain name, the scan is unknown, or the file is no image.
        """
        suffix, tag = _suffix("label", label_filename), plain_name("tag", label_tag)
        self._held(image_id)
        _let_go(self.folder / "labels" / tag / f"{image_id}{suffix}")
        return str(super().save_label(image_id, label_filename, tag, label_info))

    def remove_image(self, image_id: str) -> None:
        """Delete a scan and its labels.

        Args:
            image_id: of the scan.

        Raises:
            PairError: the scan is unknown.
        """
        held = self._held(image_id)
        place = self._file(image_id, held.image)
        if place.is_dir() and not place.is_symlink():
            raise PairError(
                f"scan {image_id!r} is a folder of DICOM files, which is not deleted here; remove it by hand"
            )
        for tag in tuple(held.labels):
            self.remove_label(image_id, tag)
        place.unlink(missing_ok=True)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Delete a label.

        Args:
            label_id: of the scan.
            label_tag: of the label.

        Raises:
            PairError: there is none.
        """
        label = self._held(label_id).labels.get(label_tag)
        if label is None:
            raise PairError(f"no label with the tag {label_tag!r:.80} of scan {label_id!r}, so none was deleted")
        self._file(label_id, label, tag=label_tag).unlink(missing_ok=True)

    def packed(self, limit: int | None) -> IO[bytes]:
        """Pack scans with their saved labels into a zip, and return it open at its beginning.

        The file has no name on the disk and is gone once it is closed.

        Args:
            limit: most scans; None for all.

        Raises:
            PairError: no scan has a saved label.
        """
        scans = sorted(scan for scan, saved in self.labelled().items() if saved)[:limit]
        if not scans:
            raise PairError("no scan has a saved label, so there is nothing to pack; save a label first")
        with ExitStack() as failed:
            file = failed.enter_context(tempfile.TemporaryFile())
            with zipfile.ZipFile(file, "w") as archive:
                for scan in scans:
                    held = self._held(scan)
                    files = {
                        "image": self._file(scan, held.image),
                        "label": self._file(scan, held.labels[SAVED], tag=SAVED),
                    }
                    for kind, path in files.items():
                        for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
                            archive.write(part, f"{kind}/{part.relative_to(path.parent).as_posix()}")
                archive.writestr("metadata.json", json.dumps(self.json()))
            failed.pop_all()
        file.seek(0)
        return file

    def labelled(self) -> dict[str, bool]:
        """Return every scan, and whether it has a saved label."""
        scans = self.list_images()
        with_label = set(self.get_labeled_images())
        return {scan: scan in with_label for scan in scans}

    def saved_label(self, scan: str) -> str | None:
        """Return the path of a scan's saved label, None where there is none."""
        return self.get_label_uri(scan, SAVED) or None

    def saved_points(self, scan: str) -> str:
        """Return the path of the points that a person has saved for a scan.

        Raises:
            PairError: there are none.
        """
        files = [self.folder / POINTS / f"{scan}{suffix}" for suffix in POINT_SUFFIXES]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise PairError(
                f"guide_points: the study folder has no {POINTS}/{files[0].name}; save the points of both scans"
            )
        return str(found)

    def label_names(self, scan: str) -> dict[str, int]:
        """Return name and value of the labels that were saved for a scan."""
        return names_of(
            self.get_label_uri(scan, SAVED), self.get_label_info(scan, SAVED), scan=self.get_image_uri(scan)
        )

    def image_to_send(self, scan: str) -> Path | None:
        """Return a NIfTI file of a DICOM scan, which the caller deletes; None for scans that are sent as they are."""
        return scan_to_send(scan, self.get_image_uri(scan)) if scan in self._datastore.objects else None

    def label_to_send(self, scan: str, tag: str) -> Path | None:
        """Return a NIfTI file of an RTSTRUCT or SEG, which the caller deletes; None for other labels."""
        label = self.get_label_uri(scan, tag)
        return label_to_send(scan, label, self.get_image_uri(scan)) if label else None

    def _held(self, scan: str) -> Any:
        """Return what MONAI Label keeps about a scan and its labels; raise PairError for an unknown id."""
        held = self._datastore.objects.get(scan)
        if held is None:
            raise PairError(f"scan {scan!r:.80} not found in the study folder; upload it first")
        return held

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is kept about a scan; of DICOM without its path, which a viewer would open as an image file."""
        told: dict[str, Any] = super().get_image_info(image_id)
        return {word: value for word, value in told.items() if word != "path" or is_image_file(value)}

    def _file(self, scan: str, kept: Any, *, tag: str | None = None) -> Path:
        """Return where a scan lies, or its label with a tag; a link is not followed.

        Args:
            scan: its id.
            kept: its entry in `_held`.
            tag: of the label; None for the scan.
        """
        folder = self.folder if tag is None else Path(self._datastore.label_path(tag))
        return folder / f"{scan}{kept.ext}"


def plain_name(what: str, name: Any) -> str:
    """Return a name that is one part of a path.

    Args:
        what: is named, for the error message.
        name: to be checked.

    Raises:
        PairError: it is another name.
    """
    if not PLAIN.fullmatch(str(name)):
        raise PairError(f"{what} must be a plain name, without folders and not hidden, got {name!r:.80}")
    return str(name)


def _suffix(what: str, filename: str) -> str:
    """Return the suffix of a file that was sent; raise PairError for a file that is no image."""
    suffix = next((suffix for suffix in SERVED_SUFFIXES if filename.endswith(suffix)), None)
    if suffix is None:
        got = "".join(Path(filename).suffixes)  # not the whole name, which MONAI Label has given it
        raise PairError(f"a {what} is one of {', '.join(SERVED_SUFFIXES)}, got {got!r:.80}; convert it first")
    return suffix


def _let_go(path: Path) -> None:
    """Remove a link, so that the next file that is written there does not go through it."""
    if path.is_symlink():
        path.unlink()
