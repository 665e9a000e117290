"""The one task of the app: a saved label of the moving scan, carried over to the fixed one by a registration."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk
from filelock import FileLock
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from ncf.cohort.run import tell_notes
from ncf.cohort.worker import task_of
from ncf.core.errors import PairError
from ncf.core.files import claim_folder, write_whole
from ncf.core.names import (
    DEFORMABLE,
    FIELD_FILE,
    METRICS_FILE,
    MODALITIES,
    TRANSFORMS,
    WARPED_FILE,
    WARPED_LABEL_FILE,
    WARPED_NAMES_FILE,
    pair_name,
    safe_name,
)
from ncf.core.presets import config_files, presets
from ncf.label.asked import AUTOMATIC, DEFAULT, Asked, understood
from ncf.label.labels import merged, names_of
from ncf.label.study import StudyFolder
from ncf.label.worker import WarmWorker
from ncf.result.folder import SavedResult

RESULTS = "registrations"  # folder in the study folder, a result folder for each pair in it
DESCRIPTION = "Labels of another scan of this patient, carried over by a registration (NCF)"


class Registration(InferTask):
    """Registers two scans; viewers list it as a segmentation model, because it answers with a label map of their scan.

    Args:
        study: the folder of scans.
        worker: registers.
        device: that registers; None for the default.
    """

    def __init__(self, study: StudyFolder, worker: WarmWorker, *, device: str | None = None) -> None:
        super().__init__(type=InferType.SEGMENTATION, labels=None, dimension=3, description=DESCRIPTION)
        self.study, self.worker = study, worker
        self.settings = {} if device is None else {"device": device}  # set for this machine; no viewer asks for it

    def is_valid(self) -> bool:
        """Return True: there is no model file that could be missing."""
        return True

    def info(self) -> dict[str, Any]:
        """Return what GET /info tells; ``labels`` are those of all saved labels, so that viewers make segments."""
        scans = [scan for scan, saved in self.study.labelled().items() if saved]
        return {**super().info(), "labels": merged(map(self._names, sorted(scans)))}

    def _names(self, scan: str) -> dict[str, int]:
        """Return the names of a scan's labels; none where they cannot be read, which is told when they are needed."""
        try:
            return self.study.label_names(scan)
        except PairError:
            return {}

    def config(self) -> dict[str, Any]:
        """Return options with their defaults; a viewer shows a list as a choice, with its first entry as default."""
        moving = [AUTOMATIC, *sorted(self.study.list_images())]
        return {
            "moving": moving,
            "preset": [DEFAULT, *presets()],
            "modality": list(MODALITIES),
            "transform": [DEFORMABLE, *TRANSFORMS[:-1]],
            "seed": 0,
            "align_centres": False,
            "guide_points": False,
            "guide_labels": False,
            "rigid_label": "",
            "keep_volume_label": "",
        }

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Register the pair that a request asks for.

        Args:
            request: ``image`` is an id; for the rest see `ncf.label.asked.understood`.

        Returns:
            The path of the label map, a copy to be given away, and what is told about it.

        Raises:
            PairError: the request cannot be understood, or the pair cannot be registered.
        """
        asked = understood(request, labelled=self.study.labelled(), presets=presets())
        folder = claim_folder(self.study.folder / RESULTS)
        with FileLock(folder / ".lock"):  # a batch, which is another process, waits for it too
            result = self._registered(asked, folder)
            names = self._carried(asked, result)
            reply = _given_away(result.folder / WARPED_LABEL_FILE, asked)
        files = {"warped": WARPED_FILE, "field": FIELD_FILE, "label": WARPED_LABEL_FILE, "metrics": METRICS_FILE}
        return str(reply), {
            "label_names": names,
            "fixed": asked.fixed,
            "moving": asked.moving,
            "preset": asked.preset or DEFAULT,
            **asked.overrides,
            "metrics": result.metrics,
            "paths": {name: str(result.folder / file) for name, file in files.items()},
        }

    def _carried(self, asked: Asked, result: SavedResult) -> dict[str, int]:
        """Return the names of the labels in a result, whose numbers may be those of the fixed scan's labels."""
        if (result.folder / WARPED_NAMES_FILE).exists():
            return names_of(str(result.folder / WARPED_LABEL_FILE), {})
        return self.study.label_names(asked.moving)

    def _registered(self, asked: Asked, folder: Path) -> SavedResult:
        """Register a pair and return its result."""
        scans = {
            key: self.study.get_image_uri(scan) for key, scan in (("fixed", asked.fixed), ("moving", asked.moving))
        }
        labels = {f"{key}_label": self.study.saved_label(getattr(asked, key)) for key in scans}
        pair = {**scans, **{key: path for key, path in labels.items() if path}}
        if asked.guide_points:
            pair |= {f"{key}_guide_points": self.study.saved_points(getattr(asked, key)) for key in scans}
        pair["name"] = pair_name(asked.fixed, asked.moving)
        settings = {**asked.overrides, **self.settings}
        outcome = self.worker(task_of(pair, config_files(asked.preset), settings, folder, face="server"))
        tell_notes(outcome)
        if outcome.reason is not None:
            raise PairError(outcome.reason)
        return SavedResult(folder / pair["name"])


def _given_away(label: Path, asked: Asked) -> Path:
    """Copy the label map to the temporary folder, in the file type that was asked for; whoever sends it deletes it."""
    copy = Path(tempfile.gettempdir()) / f"{safe_name(asked.fixed)}__{secrets.token_hex(4)}{asked.extension}"
    if label.name.endswith(asked.extension):
        write_whole(copy, lambda temporary: shutil.copyfile(label, temporary))
    else:
        write_whole(copy, lambda temporary: sitk.WriteImage(sitk.ReadImage(str(label)), str(temporary)))
    return copy
