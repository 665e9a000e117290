"""The app of MONAI Label; scripts/label_app/main.py hands it over."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from ncf.core.errors import PairError
from ncf.core.presets import version
from ncf.label.dicom import is_image_file
from ncf.label.study import StudyFolder, plain_name
from ncf.label.task import DESCRIPTION, Registration
from ncf.label.worker import WarmWorker

MODEL = "ncf"
TRUE = ("true", "1")


class App(MONAILabelApp):
    """One model that registers, over a folder of scans.

    Args:
        app_dir: folder of the app.
        studies: folder of scans.
        conf: settings; ``device`` is the one that registers.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.worker = WarmWorker()
        atexit.register(self.worker.stop)
        super().__init__(app_dir, studies, conf, name="NCF", description=DESCRIPTION, version=version())

    def init_datastore(self) -> StudyFolder:
        """Return the folder of scans."""
        return StudyFolder(self.studies)

    def init_infers(self) -> dict[str, Registration]:
        """Return the one model, by its name."""
        return {MODEL: Registration(self._datastore, self.worker, device=self.conf.get("device"))}

    def init_batch_infer(self) -> Callable:
        """Return what runs many pairs."""
        return Batch()

    def on_init_complete(self) -> None:
        """Do nothing: there are no scores to compute and no sessions to clean up."""

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scan that is next by a strategy of MONAI Label.

        Args:
            request: names the strategy.

        Returns:
            Its id and, of an image file, its path: a viewer that finds a path opens it, which for a folder fails.
        """
        found: dict[str, Any] = super().next_sample(request)
        return {word: told for word, told in found.items() if word != "path" or is_image_file(told)}

    def sessions(self) -> Any:
        """Raise PairError: scans that are not in the study folder have no partner there.

        Raises:
            PairError: always.
        """
        raise PairError(
            "scans are registered by their id in the study folder, sessions are not offered; upload the scan"
        )

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer a request with a label map, as MONAI Label hands it on.

        The label is stored (as "original", the tag for results of models) where ``save_label`` is true.

        Args:
            request: of a viewer.
            datastore: not used.

        Returns:
            ``label``, ``tag``, ``file`` and ``params``: the label map and what is told about it.

        Raises:
            PairError: the request cannot be understood, or the pair cannot be registered.
        """
        model = request.get("model")
        if model != MODEL:
            raise PairError(f"no model {model!r:.80}; there is: {MODEL}")
        stored = str(request.get("save_label", False)).lower() in TRUE
        # checked before the registration, which takes its time
        tag = plain_name("tag", request.get("label_tag") or "original")
        file, told = self._infers[model](request)
        label = file
        with ExitStack() as failed:
            failed.callback(Path(file).unlink)
            if stored:
                label = self.datastore().save_label(told["fixed"], file, tag, {"model": model, "params": told})
            failed.pop_all()
        return {"label": label, "tag": "original", "file": file, "params": told}


class Batch(BatchInferTask):
    """Registers pair after pair; an error of one is told and does not end the others."""

    def __call__(self, request: Mapping[str, Any], datastore: StudyFolder, infer: Callable) -> dict[str, Any]:
        """Register every scan that was asked for.

        Args:
            request: names the scans.
            datastore: the folder of scans.
            infer: answers a request for one scan.

        Returns:
            By scan: the id of its new label with metrics and paths, or the error in words.
        """
        scans = sorted(self.get_images(request, datastore))[: request.get("max_batch_size") or None]
        results = {}
        for scan in scans:
            try:
                answer = infer({**request, "image": scan, "save_label": True})
            except (PairError, MONAILabelException) as error:
                results[scan] = {"error": getattr(error, "msg", str(error))}
            else:
                Path(answer.pop("file")).unlink()
                results[scan] = answer
            print(f"{scan}: {results[scan].get('error', 'done')}", flush=True)
        return results
