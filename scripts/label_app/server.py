"""MONAI Label's web server with this app, on this machine alone, free to answer while it registers."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from scripts import drawing
from scripts.errors import PairError

HOST = "127.0.0.1"  # patients' scans are served without a password
GRACE_S = 3  # for replies that are under way when the server is stopped


def serve(studies: Path, *, port: int, device: str | None = None) -> None:
    """Nothing; the server ran until it was stopped. Raises PairError where it cannot run, or not on this device."""
    if not studies.is_dir():
        raise PairError(f"{studies} is no folder; name the one with your scans")
    if device is not None:
        from scripts.guard import check_device

        check_device(device)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PairError(f"cannot listen on {HOST}:{port} ({error.strerror}); choose another --port") from error
    with tempfile.TemporaryDirectory() as scratch:
        # MONAI Label reads them at its import; a batch process inherits them
        os.environ.update(_settings(studies, port, device), **{drawing.FOLDER: scratch})
        try:
            import uvicorn

            application = _application(port)
        except ImportError as error:
            what = f"the label server needs MONAI Label in an environment of its own, and here is no {error.name}"
            raise PairError(f"{what}; docs/monai_label.md says how to install it") from error
        uvicorn.run(application, host=HOST, port=port, access_log=False, timeout_graceful_shutdown=GRACE_S)


def _settings(studies: Path, port: int, device: str | None) -> dict[str, str]:
    here = Path(__file__).resolve().parent
    roots = [str(here.parent.parent), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, roots)),
        "MONAI_LABEL_APP_DIR": str(here),
        "MONAI_LABEL_STUDIES": str(studies.resolve()),
        "MONAI_LABEL_SERVER_PORT": str(port),
        "MONAI_LABEL_APP_CONF": json.dumps({} if device is None else {"device": device}),
        "MONAI_LABEL_SESSIONS": "false",  # they would lie in the home folder
        "MONAI_LABEL_TASKS_TRAIN": "false",
        "MONAI_LABEL_TASKS_SCORING": "false",
    }


def _application(port: int) -> Any:
    """MONAI Label's web application with four changes.

    Its /infer holds up every other request: there the endpoint is a coroutine that waits for the result. As a plain
    function, in a route of ours before theirs, FastAPI runs it in a thread. An error that is meant for a person is
    answered with status 400 and its sentence, and so are parameters that are no JSON object. A web page of another
    address may not read the answers; theirs lets any page do so that the browser shows.
    """
    from fastapi import Depends, Form, HTTPException
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from monailabel.config import settings

    # not by the environment: a batch process, which inherits that, prints its settings as JSON and fails over an address
    settings.MONAI_LABEL_CORS_ORIGINS = [f"http://{name}:{port}" for name in (HOST, "localhost")]
    from monailabel.app import app
    from monailabel.endpoints.infer import run_inference
    from monailabel.endpoints.user.auth import RBAC
    from monailabel.interfaces.exception import MONAILabelException

    def check(params: str = Form("{}")) -> None:
        try:
            understood = isinstance(json.loads(params or "{}"), dict)
        except ValueError:
            understood = False
        if not understood:
            raise HTTPException(400, f"params must be a JSON object, got {params!r:.80}")

    def refused(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": getattr(error, "msg", str(error))}, status_code=400)

    needs = [Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)), Depends(check)]
    app.router.routes.insert(0, APIRoute("/infer/{model}", run_inference, methods=["POST"], dependencies=needs))
    for error in (PairError, MONAILabelException):
        app.add_exception_handler(error, refused)
    return app
