"""The study folder as MONAI Label's datastore, closed to names that lead out of it.

A link in it is the way to keep a scan elsewhere: it is read through, but what it leads to is neither changed nor deleted.
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

from scripts.errors import PairError
from scripts.label_app.labels import names_of
from scripts.names import image_stem

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
PLAIN = re.compile(r"[^./\\\0][^/\\\0]*")  # one part of a path, not hidden
SAVED = DefaultLabelTag.FINAL  # labels that somebody saved; results of models have the tag "original"


class StudyFolder(LocalDatastore):
    """The scans of a folder (``ID.nii.gz``) and their labels (``labels/<tag>/ID.nii.gz``)."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=True)
        self.folder = Path(folder)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """The id of the scan, copied into the folder; raises PairError for an id that is no plain name."""
        suffix = _suffix("scan", image_filename)
        scan = plain_name("image", image_id or image_stem(image_filename))
        _let_go(self.folder / f"{scan}{suffix}")
        return str(super().add_image(scan, image_filename, image_info))

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """The id of the label, copied into ``labels/<tag>/``; raises PairError for a tag that is no plain name."""
        suffix, tag = _suffix("label", label_filename), plain_name("tag", label_tag)
        self._held(image_id)
        _let_go(self.folder / "labels" / tag / f"{image_id}{suffix}")
        return str(super().save_label(image_id, label_filename, tag, label_info))

    def remove_image(self, image_id: str) -> None:
        """Nothing; the scan and its labels are deleted. Raises PairError for an unknown id."""
        held = self._held(image_id)
        for tag in tuple(held.labels):
            self.remove_label(image_id, tag)
        self._file(image_id, held.image).unlink(missing_ok=True)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Nothing; the label is deleted. Raises PairError where there is none."""
        label = self._held(label_id).labels.get(label_tag)
        if label is None:
            raise PairError(f"no label with the tag {label_tag!r:.80} of scan {label_id!r}, so none was deleted")
        self._file(label_id, label, tag=label_tag).unlink(missing_ok=True)

    def packed(self, limit: int | None) -> IO[bytes]:
        """A zip of scans with their saved labels, open at its begin; it has no name on the disk and is gone once closed.

        Raises PairError where no scan has a saved label.
        """
        scans = sorted(scan for scan, saved in self.labelled().items() if saved)[:limit]
        if not scans:
            raise PairError("no scan has a saved label, so there is nothing to pack; save a label first")
        with ExitStack() as failed:
            file = failed.enter_context(tempfile.TemporaryFile())
            with zipfile.ZipFile(file, "w") as archive:
                for scan in scans:
                    held = self._held(scan)
                    files = {"image": self._file(scan, held.image), "label": self._file(scan, held.labels[SAVED], tag=SAVED)}
                    for kind, path in files.items():
                        archive.write(path, f"{kind}/{path.name}")
                archive.writestr("metadata.json", json.dumps(self.json()))
            failed.pop_all()
        file.seek(0)
        return file

    def labelled(self) -> dict[str, bool]:
        """Every scan, and whether it has a saved label."""
        with_label = set(self.get_labeled_images())
        return {scan: scan in with_label for scan in self.list_images()}

    def saved_label(self, scan: str) -> str | None:
        """The path of a scan's saved label, None where there is none."""
        return self.get_label_uri(scan, SAVED) or None

    def label_names(self, scan: str) -> dict[str, int]:
        """Name and value of the labels that were saved for a scan."""
        return names_of(self.get_label_uri(scan, SAVED), self.get_label_info(scan, SAVED))

    def _held(self, scan: str) -> Any:
        """What MONAI Label keeps about a scan and its labels; PairError for an unknown id."""
        held = self._datastore.objects.get(scan)
        if held is None:
            raise PairError(f"scan {scan!r:.80} not found in the study folder; upload it first")
        return held

    def _file(self, scan: str, kept: Any, *, tag: str | None = None) -> Path:
        """Where a scan lies, or its label with that tag; a link is not followed. kept: its entry in `_held`."""
        folder = self.folder if tag is None else Path(self._datastore.label_path(tag))
        return folder / f"{scan}{kept.ext}"


def plain_name(what: str, name: Any) -> str:
    """The name, which is one part of a path; PairError for others."""
    if not PLAIN.fullmatch(str(name)):
        raise PairError(f"{what} must be a plain name, without folders and not hidden, got {name!r:.80}")
    return str(name)


def _suffix(what: str, filename: str) -> str:
    """Of a file that was sent; PairError for one that is no image."""
    suffix = next((suffix for suffix in SUFFIXES if filename.endswith(suffix)), None)
    if suffix is None:
        got = "".join(Path(filename).suffixes)  # its name is one that MONAI Label gave it
        raise PairError(f"a {what} is one of {', '.join(SUFFIXES)}, got {got!r:.80}; convert it first")
    return suffix


def _let_go(path: Path) -> None:
    """Nothing; what is written there next does not go through a link."""
    if path.is_symlink():
        path.unlink()
