"""A step that is asked for once and then replayed by the device alone (CUDA graphs).

A step of a fit is some hundred operations of a few microseconds each. Python needs longer to ask for one of them than a
GPU to do it, so the GPU would wait most of the time. Recorded once, all of them start by one call
(docs/decisions/0033-gpu.md). This room must not know what a step does.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

logger = logging.getLogger(__name__)

ONE_BY_ONE = 1  # first calls, in which whatever is built only once is built


class _OfThread(threading.local):
    """What a thread records with, by device."""

    def __init__(self) -> None:
        self.known: dict[torch.device, tuple[torch.cuda.Stream, torch.cuda.CUDAGraph]] = {}


_of_thread = _OfThread()


class Replayed:
    """A function of tensors that stay where they are, recorded at its second call on a GPU; elsewhere itself.

    Args:
        step: changes tensors in place and returns one. It must do the same at every call, and neither ask the device
            for a number nor hand it one; if it does, it is called every time.
        device: of its tensors.
        prepared: True where another step has built whatever is built only once.
    """

    def __init__(self, step: Callable[[], torch.Tensor], device: torch.device, *, prepared: bool = False) -> None:
        self.step, self.device = step, device
        self._calls, self._to_record = int(prepared), device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found = torch.empty(0)

    def __call__(self) -> torch.Tensor:
        """Do the step; return what it returns."""
        self._calls += 1
        if self._to_record and self._calls > ONE_BY_ONE:
            self._to_record = False
            self._record()
        if self._graph is not None:
            self._graph.replay()
            return self._found.clone()
        if not self._to_record:
            return self.step()
        with _aside(_recorder(self.device)[0]):  # where it will be recorded, as torch asks for
            return self.step()

    def _record(self) -> None:
        """Record the step, without doing it."""
        stream, keeper = _recorder(self.device)
        try:
            self._graph, self._found = _recorded(self.step, stream, pool=keeper.pool())
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            logger.info("steps are asked for one by one, as one cannot be recorded (%s)", str(error).splitlines()[0])


def _recorder(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.CUDAGraph]:
    """Return the stream on which this thread records steps, and a graph that keeps their memory for those to come.

    Every stream and every graph of its own would ask the device for new memory, and torch would keep all of it.
    """
    known = _of_thread.known
    if device not in known:
        stream = torch.cuda.Stream(device)
        known[device] = stream, _recorded(lambda: torch.zeros(1, device=device), stream)[0]
    return known[device]


def _recorded(
    step: Callable[[], torch.Tensor], stream: torch.cuda.Stream, **options: Any
) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """Return a step as a graph, and the tensor in which it leaves what it returns."""
    graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
    gc.disable()  # a graph that is freed while another is recorded would spoil it
    try:
        with _aside(stream):
            graph.capture_begin(capture_error_mode="thread_local", **options)
            try:
                found = step()
            finally:
                graph.capture_end()
    finally:
        if collecting:
            gc.enable()
    return graph, found


@contextmanager
def _aside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on another stream, after all that was asked of the present one and before all that will be."""
    own = torch.cuda.current_stream(stream.device)
    stream.wait_stream(own)
    with torch.cuda.stream(stream):
        yield
    own.wait_stream(stream)
