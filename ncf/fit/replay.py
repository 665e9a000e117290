"""A step that is asked for once and then replayed by the device alone (CUDA graphs).

A step of a fit is some hundred operations of a few microseconds each. Python needs longer to ask for one of them than a
GPU to do it, so the GPU would wait most of the time. Recorded once, all of them start by one call
(docs/decisions/0033-gpu.md). This room must not know what a step does.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

ONE_BY_ONE = 1  # first calls, in which whatever is built only once is built


class Replayed:
    """A function of tensors that stay where they are, recorded at its second call on a GPU; elsewhere itself.

    Args:
        step: changes tensors in place and returns one. It must do the same at every call, ask the device for nothing,
            and take nothing from the host.
        device: of its tensors.
    """

    def __init__(self, step: Callable[[], torch.Tensor], device: torch.device) -> None:
        self.step = step
        self._calls, self._left = 0, device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._left else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._found = torch.empty(0)

    def __call__(self) -> torch.Tensor:
        """Do the step; return what it returns."""
        if self._graph is None and self._left:
            self._calls += 1
            if self._calls > ONE_BY_ONE:
                self._left = False
                self._record()
        if self._graph is None:
            return self._aside() if self._left else self.step()
        self._graph.replay()
        return self._found.clone()

    def _aside(self) -> torch.Tensor:
        """Do the step on the stream on which it will be recorded, as torch asks for."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            found = self.step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return found

    def _record(self) -> None:
        """Record the step, which does not do it; without a word it stays a function where that cannot be done."""
        assert self._stream is not None
        graph, stream = torch.cuda.CUDAGraph(), self._stream
        stream.wait_stream(torch.cuda.current_stream())
        collecting = gc.isenabled()
        gc.disable()  # what is freed while a graph is recorded would spoil it
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    self._found = self.step()
                finally:
                    graph.capture_end()
            self._graph = graph
        except RuntimeError as error:
            torch.cuda.synchronize()
            logger.info("steps are asked for one by one, as one cannot be recorded (%s)", str(error).splitlines()[0])
        finally:
            if collecting:
                gc.enable()
        torch.cuda.current_stream().wait_stream(stream)
