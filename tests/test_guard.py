"""What a run does to its process, before it begins and between two pairs."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine

from ncf.core.presets import config
from ncf.core.process import Allocator
from ncf.run.guard import FlagCheck, Released

FRESH = """
import sys
import torch
from ncf.core.process import Allocator

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "told":
    assert Allocator().run()
before = resident_mib()
hold = [torch.rand(3_000_000) for _ in range(6)]
during = resident_mib()
del hold
print(during - before, resident_mib() - before)
"""
HELD_MIB = 6 * 12e6 / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
@pytest.mark.parametrize(("how", "kept"), [("told", 1.0), ("untold", 0.0)])
def test_freed_memory_is_kept_for_the_next_step(how: str, kept: float) -> None:
    command = [sys.executable, "-c", FRESH, how]
    during, after = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    # a tenth: what else a process takes for itself at its first numbers
    assert [during, after] == pytest.approx([HELD_MIB, kept * HELD_MIB], abs=0.1 * HELD_MIB)


@pytest.mark.parametrize(("system", "library"), [("darwin", None), ("win32", None), ("linux", SimpleNamespace())])
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, system: str, library: object) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert Allocator().run() is False


def test_one_pairs_volumes_are_gone_before_the_next_is_read() -> None:
    volumes: list[weakref.ref] = []

    def pairs() -> Iterator[int]:
        for number in range(3):
            assert all(volume() is None for volume in volumes) and len(volumes) == number
            yield number

    def register(engine: Engine, batch: int) -> dict[str, torch.Tensor]:
        volume = torch.zeros(10)
        volumes.append(weakref.ref(volume))
        return {"volume": volume}

    evaluator = Engine(register)
    Released().attach(evaluator)
    evaluator.run(pairs(), epoch_length=3)
    assert len(volumes) == 3 and volumes[-1]() is not None


def test_a_flag_that_is_text_ends_in_one_line() -> None:
    FlagCheck(report=True, strict=False).run()
    with pytest.raises(SystemExit, match=r"error: report is True or False, and not the text 'false': --report=False"):
        FlagCheck(strict=True, report="false").run()
    with pytest.raises(SystemExit, match="--strict=True or False"):
        FlagCheck(strict="no").run()


def test_every_flag_of_the_config_is_looked_at() -> None:
    told = json.loads(Path(config("inference")).read_text(encoding="utf-8"))
    flags = {name for name, value in told.items() if isinstance(value, bool)}
    looked_at = {name for name in told["flag_check"] if not name.startswith("_")}
    assert flags - {"guide_labels"} == looked_at  # which may be names of labels
    assert told["run"][0] == "$@flag_check.run()"
