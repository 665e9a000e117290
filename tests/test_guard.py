"""What a run does to its process before it begins."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from scripts.guard import Allocator

FRESH = """
import resource, sys
import torch
from scripts.guard import Allocator
if sys.argv[1] == "told":
    assert Allocator().run()
hold = [torch.rand(3_000_000) for _ in range(6)]
del hold
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    hold = [torch.rand(3_000_000) for _ in range(6)]
    del hold
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    faults = [
        int(subprocess.run([sys.executable, "-c", FRESH, how], check=True, capture_output=True, text=True).stdout)
        for how in ("told", "untold")
    ]
    assert faults[0] < faults[1] / 10  # pages the system had to give for 72 MB, twenty times


@pytest.mark.parametrize(("system", "library"), [("darwin", None), ("win32", None), ("linux", SimpleNamespace())])
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, system: str, library: object) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert Allocator().run() is False
