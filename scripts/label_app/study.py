"""The study folder as MONAI Label's datastore, closed to names that lead out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from scripts.errors import PairError
from scripts.label_app.labels import names_of
from scripts.names import image_stem

SUFFIXES = ("*.nii.gz", "*.nii", "*.nrrd", "*.mha")
PLAIN = re.compile(r"[^./\\\0][^/\\\0]*")  # one part of a path, not hidden
SAVED = DefaultLabelTag.FINAL  # labels that somebody saved; results of models have the tag "original"


class StudyFolder(LocalDatastore):
    """The scans of a folder (``ID.nii.gz``) and their labels (``labels/<tag>/ID.nii.gz``)."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, extensions=list(SUFFIXES), auto_reload=True)
        self.folder = Path(folder)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """The id of the scan, copied into the folder; raises PairError for an id that is no plain name."""
        name = Path(image_filename).name
        if not any(name.endswith(suffix[1:]) for suffix in SUFFIXES):
            raise PairError(f"a scan is one of {', '.join(SUFFIXES)}, got {name!r:.80}")
        return str(super().add_image(_plain("image", image_id or image_stem(name)), image_filename, image_info))

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """The id of the label, copied into ``labels/<tag>/``; raises PairError for a tag that is no plain name."""
        return str(super().save_label(image_id, label_filename, _plain("tag", label_tag), label_info))

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


def _plain(what: str, name: Any) -> str:
    if not PLAIN.fullmatch(str(name)):
        raise PairError(f"{what} must be a plain name, without folders and not hidden, got {name!r:.80}")
    return str(name)
