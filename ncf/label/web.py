"""The web application: those parts of MONAI Label's that docs/monai_label.md describes, and no others.

MONAI Label's own application has more: files of models, its log, a proxy, a reload that keeps the old worker. Of the
parts that are offered here, eight endpoints are ours. Theirs hold up every other request (a coroutine that waits for a
result; FastAPI runs a plain function in a thread), leave something behind, or know no DICOM.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import uvicorn
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, StreamingResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, datastore, info, session
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance, apps
from monailabel.utils.async_tasks.task import AsyncTask
from starlette.background import BackgroundTask
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ncf.core.errors import PairError
from ncf.core.presets import version
from ncf.label.dicom import SENT_SUFFIX
from ncf.label.overview import POLICY, overview
from ncf.label.pages import OwnPages

OBJECTS = ("params", "info")  # fields of a form that hold JSON
# by these MONAI Label would choose what the process of a batch sees: its CUDA devices, and a folder with Python code
OF_THE_PROCESS = ("gpus", "bundle_path")
CHUNK_BYTES = 2**20
ours = APIRouter()


def application(host: str, port: int) -> FastAPI:
    """Return what uvicorn runs. An error that is meant for a person is answered with status 400 and its sentence.

    A web page of another address may neither ask for a change nor read an answer. Nor may a page whose name leads to
    this machine; the Host header then has that name.

    Args:
        host: address of the server.
        port: of the server.
    """
    names = [host, "localhost"]
    pages = [f"http://{name}:{port}" for name in names]
    doors = [
        Middleware(TrustedHostMiddleware, allowed_hosts=names),
        Middleware(OwnPages, pages=pages),
        Middleware(CORSMiddleware, allow_origins=pages, allow_methods=["*"], allow_headers=["*"]),
    ]
    needs = [Depends(_objects), Depends(_tidied)]
    web = FastAPI(
        title="NCF",
        version=version(),
        docs_url=None,  # `pages` takes the place of both
        redoc_url=None,
        lifespan=_life,
        middleware=doors,
        dependencies=needs,
    )
    for error in (PairError, MONAILabelException):
        web.add_exception_handler(error, _refused)
    for part in (ours, info.router, batch_infer.router, activelearning.router, datastore.router, session.router):
        web.include_router(part)
    return web


def run(host: str, port: int, *, grace_s: int) -> None:
    """Run the server until it is stopped.

    Args:
        host: address of the server.
        port: of the server.
        grace_s: seconds for replies that are under way when it is stopped.

    Raises:
        PairError: it could not begin.
    """
    web = application(host, port)
    config = uvicorn.Config(web, host=host, port=port, access_log=False, timeout_graceful_shutdown=grace_s)
    server = _Server(config)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # from Ctrl-C; uvicorn raises it again at its end
            server.run()
    finally:
        _stop_registering()
    if not server.started:
        raise PairError("the label server did not start; the lines above say why")


class _Server(uvicorn.Server):
    """Ends registrations before it waits for the last replies, which would wait for them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the registrations, then the server."""
        _stop_registering()
        await super().shutdown(sockets)


def _stop_registering() -> None:
    """End the worker and a batch, with the pairs that they are at."""
    with contextlib.suppress(psutil.NoSuchProcess):  # a batch that has ended at this moment
        AsyncTask.stop("batch_infer")
    for app in apps.values():
        app.worker.stop()


@contextlib.asynccontextmanager
async def _life(_: FastAPI) -> AsyncIterator[None]:
    """Make the app before the first request."""
    app = app_instance()
    app.server_mode(True)
    app.on_init_complete()
    yield


def _refused(_: Any, error: Exception) -> JSONResponse:
    """Answer with status 400 and the sentence of an error."""
    return JSONResponse({"detail": getattr(error, "msg", str(error))}, status_code=400)


@ours.get("/", include_in_schema=False)
@ours.get("/docs", include_in_schema=False)
def pages(request: Request) -> HTMLResponse:
    """Return the page that lists what can be asked; nothing of it is loaded from another host.

    Args:
        request: to this application.
    """
    return HTMLResponse(overview(request.app.openapi()), headers=POLICY)


async def _objects(request: Request) -> None:
    """Raise PairError for a form whose JSON is no object, or holds what JSON has no word for."""
    form = await request.form() if request.method in ("PUT", "POST") else {}
    for name in OBJECTS:
        text = form.get(name)
        if isinstance(text, str) and text and not _is_object(text):
            raise PairError(f"{name} must be a JSON object, got {text!r:.80}")


def _is_object(text: str) -> bool:
    """Tell whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text, parse_constant=_no_json), dict)
    except ValueError:
        return False


def _no_json(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python reads as JSON but cannot answer with."""
    raise ValueError(constant)


def _tidied(tasks: BackgroundTasks) -> Iterator[None]:
    """Remove the files of a refused request at once. MONAI Label's own tasks for that run only after an answer."""
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
    """Register a scan by its id, and return its label map and what is told about it.

    Args:
        model: the name of the one model.
        image: id of the scan.
        tasks: done after the answer.
        session_id: not offered.
        params: JSON, of the request.
        file: not offered.
        output: what is sent: image, json or all.

    Raises:
        PairError: the request cannot be understood, or the pair cannot be registered.
    """
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
    """Start a batch and return what is known of it, or with ``run_sync`` its results.

    Args:
        model: the name of the one model.
        images: which scans.
        params: of the request.
        run_sync: True waits for the results.
    """
    given = {word: value for word, value in (params or {}).items() if word not in OF_THE_PROCESS}
    return batch_infer.run(model, images, given, run_sync)


@ours.get("/datastore/image", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])
def image(image: str) -> Any:
    """Return a scan; a DICOM series as NIfTI.

    Args:
        image: its id.

    Raises:
        PairError: it cannot be read.
    """
    made = app_instance().datastore().image_to_send(image)
    return datastore.download_image(image) if made is None else _sent(made, image)


@ours.head("/datastore/image", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])
def image_there(image: str, check_sum: str | None = None) -> Any:
    """Answer 200 where there is a scan, and 404 where there is none.

    Args:
        image: its id.
        check_sum: that its file must have; the folder of a series has none.
    """
    place = app_instance().datastore().get_image_uri(image)
    return {} if place and Path(place).is_dir() else datastore.download_image(image, True, check_sum)


@ours.get("/datastore/label", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))])
def label(label: str, tag: str) -> Any:
    """Return the label of a scan; an RTSTRUCT or SEG as a label map in NIfTI.

    Args:
        label: id of the scan.
        tag: of the label.

    Raises:
        PairError: it cannot be read.
    """
    made = app_instance().datastore().label_to_send(label, tag)
    return datastore.download_label(label, tag) if made is None else _sent(made, label)


def _sent(made: Path, name: str) -> FileResponse:
    """Send a file and delete it then."""
    return FileResponse(made, filename=f"{name}{SENT_SUFFIX}", background=BackgroundTask(made.unlink))


@ours.get("/datastore/dataset", dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))])
def dataset(limit_cases: Annotated[int | None, Query(ge=1)] = None) -> StreamingResponse:
    """Return scans with their saved labels in one zip.

    Raises:
        PairError: no scan has a saved label.
    """
    packed = app_instance().datastore().packed(limit_cases)
    named = {"Content-Disposition": 'attachment; filename="dataset.zip"'}
    return StreamingResponse(iter(lambda: packed.read(CHUNK_BYTES), b""), media_type="application/zip", headers=named)
