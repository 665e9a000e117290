"""The app that MONAI Label loads; it looks for a ``main.py`` and takes the class in it."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from scripts.errors import PairError
from scripts.label_app.study import StudyFolder, plain_name
from scripts.label_app.task import DESCRIPTION, Registration
from scripts.label_app.worker import WarmWorker

MODEL = "ncf"
TRUE = ("true", "1")


class App(MONAILabelApp):
    """One model that registers, over a folder of scans."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.worker = WarmWorker()
        atexit.register(self.worker.stop)
        super().__init__(app_dir, studies, conf, name="NCF", description=DESCRIPTION)

    def init_datastore(self) -> StudyFolder:
        """The folder of scans."""
        return StudyFolder(self.studies)

    def init_infers(self) -> dict[str, Registration]:
        """The one model."""
        return {MODEL: Registration(self._datastore, self.worker, device=self.conf.get("device"))}

    def init_batch_infer(self) -> Callable:
        """What runs many pairs."""
        return Batch()

    def on_init_complete(self) -> None:
        """Nothing; there are no scores to compute and no sessions to clean up."""

    def sessions(self) -> Any:
        """Raises PairError; scans that are not in the study folder have no partner there."""
        raise PairError("scans are registered by their id in the study folder, sessions are not offered; upload the scan")

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """The label map of a request and what is told about it, as MONAI Label hands them on.

        The label is stored (as "original", the tag for results of models) where ``save_label`` is true. Raises PairError.
        """
        model = request.get("model")
        if model != MODEL:
            raise PairError(f"no model {model!r:.80}; there is: {MODEL}")
        stored = str(request.get("save_label", False)).lower() in TRUE
        tag = plain_name("tag", request.get("label_tag") or "original")  # before a registration, which takes its time
        file, told = self._infers[model](request)
        label = file
        with ExitStack() as failed:
            failed.callback(Path(file).unlink)
            if stored:
                label = self.datastore().save_label(told["fixed"], file, tag, {"model": model, "params": told})
            failed.pop_all()
        return {"label": label, "tag": "original", "file": file, "params": told}


class Batch(BatchInferTask):
    """Pair after pair; one that fails is told and does not end the others."""

    def __call__(self, request: Mapping[str, Any], datastore: StudyFolder, infer: Callable) -> dict[str, Any]:
        """For every scan that was asked for: the id of its new label with metrics and paths, or the error in words."""
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
