"""The web application: the parts of MONAI Label's that docs/monai_label.md describes, and no other door.

MONAI Label's own application has more of them: files of models, its log, a proxy, a reload that keeps the old worker. Of
the parts that are offered, three endpoints are ours, because theirs hold up every other request (a coroutine that waits for
a result; a plain function is run in a thread by FastAPI) or leave something behind.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, NoReturn

import psutil
import uvicorn
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, datastore, info, session
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance, apps
from monailabel.utils.async_tasks.task import AsyncTask
from starlette.middleware.trustedhost import TrustedHostMiddleware

from scripts.errors import PairError
from scripts.label_app.pages import OwnPages

OBJECTS = ("params", "info")  # of a form: JSON
# by these, MONAI Label would choose what the process of a batch sees: its CUDA devices, and a folder with Python code
OF_THE_PROCESS = ("gpus", "bundle_path")
CHUNK_BYTES = 2**20
ours = APIRouter()


def application(host: str, port: int) -> FastAPI:
    """What uvicorn runs. An error that is meant for a person is answered with status 400 and its sentence.

    A web page of another address may neither ask for a change nor read an answer, not even one whose name leads to this
    machine (the name is in the Host header then).
    """
    names = [host, "localhost"]
    pages = [f"http://{name}:{port}" for name in names]
    doors = [
        Middleware(TrustedHostMiddleware, allowed_hosts=names),
        Middleware(OwnPages, pages=pages),
        Middleware(CORSMiddleware, allow_origins=pages, allow_methods=["*"], allow_headers=["*"]),
    ]
    needs = [Depends(_objects), Depends(_tidied)]
    web = FastAPI(title="NCF", docs_url="/", redoc_url="/docs", lifespan=_life, middleware=doors, dependencies=needs)
    for error in (PairError, MONAILabelException):
        web.add_exception_handler(error, _refused)
    for part in (ours, info.router, batch_infer.router, activelearning.router, datastore.router, session.router):
        web.include_router(part)
    return web


def run(host: str, port: int, *, grace_s: int) -> None:
    """Nothing; the server ran until it was stopped. Raises PairError where it could not begin.

    grace_s: for replies that are under way then.
    """
    web = application(host, port)
    config = uvicorn.Config(web, host=host, port=port, access_log=False, timeout_graceful_shutdown=grace_s)
    server = _Server(config)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # of Ctrl-C, handed on by uvicorn at its end
            server.run()
    finally:
        _stop_registering()
    if not server.started:
        raise PairError("the label server did not start; the lines above say why")


class _Server(uvicorn.Server):
    """Ends registrations before it waits for the last replies, which would wait for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Nothing; nobody is answered any more."""
        _stop_registering()
        await super().shutdown(sockets)


def _stop_registering() -> None:
    """Nothing; the worker and a batch are gone, with the pairs that they were at."""
    with contextlib.suppress(psutil.NoSuchProcess):  # a batch that ended this moment
        AsyncTask.stop("batch_infer")
    for app in apps.values():
        app.worker.stop()


@contextlib.asynccontextmanager
async def _life(_: FastAPI) -> AsyncIterator[None]:
    """The app is made before the first request."""
    app = app_instance()
    app.server_mode(True)
    app.on_init_complete()
    yield


def _refused(_: Any, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": getattr(error, "msg", str(error))}, status_code=400)


async def _objects(request: Request) -> None:
    """Nothing; raises PairError for a form whose JSON is no object, or holds what JSON has no word for."""
    form = await request.form() if request.method in ("PUT", "POST") else {}
    for name in OBJECTS:
        text = form.get(name)
        if isinstance(text, str) and text and not _is_object(text):
            raise PairError(f"{name} must be a JSON object, got {text!r:.80}")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_no_json), dict)
    except ValueError:
        return False


def _no_json(constant: str) -> NoReturn:
    """For NaN and Infinity, which Python reads and then cannot answer with."""
    raise ValueError(constant)


def _tidied(tasks: BackgroundTasks) -> Iterator[None]:
    """Nothing; the files of a refused request are removed at once. MONAI Label's tasks for that run after answers alone."""
    with contextlib.ExitStack() as refused:
        refused.callback(lambda: [task.func(*task.args) for task in tasks.tasks])
        yield
        refused.pop_all()


@ours.post("/infer/{model}", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])
def infer(
    model: str,
    image: str = "",
    *,
    tasks: BackgroundTasks,
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    output: ResultType | None = None,
) -> Any:
    """The label map of a scan, and what is told about it. Raises PairError."""
    if file is not None or not (image or session_id):
        raise PairError("scans are registered by their id in the study folder; upload the scan, then ask with image=ID")
    if output == ResultType.dicom_seg:
        raise PairError("there is no DICOM here; output is one of image, json, all")
    return run_inference(tasks, model, image, session_id, params, file=None, label=None, output=output)


@ours.post("/batch/infer/{model}", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))])
def batch(
    model: str,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    *,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
) -> Any:
    """What is known of a batch that was started, or with ``run_sync`` its results."""
    given = {word: value for word, value in (params or {}).items() if word not in OF_THE_PROCESS}
    return batch_infer.run(model, images, given, run_sync)


@ours.get("/datastore/dataset", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))])
def dataset(limit_cases: Annotated[int | None, Query(ge=1)] = None) -> StreamingResponse:
    """Scans with their saved labels in one zip. Raises PairError where there is none."""
    packed = app_instance().datastore().packed(limit_cases)
    named = {"Content-Disposition": 'attachment; filename="dataset.zip"'}
    return StreamingResponse(iter(lambda: packed.read(CHUNK_BYTES), b""), media_type="application/zip", headers=named)
