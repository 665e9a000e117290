"""The methods by name, and one run of a method on one pair: a process of its own, then the referee, then one line."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.pairs import Pair
from benchmarks.processes import ROOT, Outcome, measured
from ncf.core.presets import presets

OURS, NONE = "ours", "none"
CANNOT_RUN = 3  # exit status of benchmarks.peers where a peer cannot run


@dataclass(frozen=True)
class Method:
    """A method by its name in the tables.

    Attributes:
        name: in the tables.
        program: our own, no registration, or a module of benchmarks.peers.
        preset: of the program.
    """

    name: str
    program: str
    preset: str = "default"

    @property
    def seeded(self) -> bool:
        """True where the method takes a seed; the others are run once."""
        return self.program == OURS


PEERS = [
    Method("elastix", "elastix"),
    Method("elastix-lung", "elastix", "lung"),
    Method("elastix-lung-nc", "elastix", "lung-nc"),
    Method("syn", "syn"),
    Method("convexadam", "convexadam"),
    Method("greedy", "greedy"),
    Method("fireants", "fireants"),
]


def known() -> dict[str, Method]:
    """Return all methods by name: ``ours``, ``ours-<preset>`` for each preset, ``none``, then the peers."""
    own = [Method(OURS, OURS), *(Method(f"{OURS}-{preset}", OURS, preset) for preset in presets())]
    return {method.name: method for method in [*own, Method(NONE, NONE), *PEERS]}


def by_default() -> list[str]:
    """Return the methods that run when none are named.

    The paper's preset is not among them, because it takes hours on a CPU, nor presets that few need.
    """
    return [name for name, method in known().items() if method.preset in ("default", "fast", "lung")]


@dataclass(frozen=True)
class Settings:
    """What all runs of a benchmark share.

    Attributes:
        output_dir: where everything goes.
        threads: that every library may use.
        device: auto, or cpu.
        peers_python: the Python that has the peers installed.
        keep_fields: True keeps every field and result.
    """

    output_dir: Path
    threads: int = 2
    device: str = "auto"
    peers_python: str = sys.executable
    keep_fields: bool = False


def run_one(method: Method, pair: Pair, *, seed: int | None, settings: Settings) -> dict[str, Any]:
    """Run one method on one pair, and return its line of runs.jsonl.

    Args:
        method: that is run.
        pair: has files.
        seed: of our method, None for the others.
        settings: of all runs.

    Returns:
        ``status`` is done, left out or failed (with ``reason``); besides, what was measured.
    """
    line: dict[str, Any] = {"pair": pair.name, "group": pair.group or pair.name, "method": method.name}
    line |= {"preset": method.preset, "seed": seed, "threads": settings.threads, **circumstances()}
    if method.program == NONE:
        return {**line, "status": "done", "version": None, "device": None, **judged(None, pair)}
    name = "_".join([pair.name, method.name, *([] if seed is None else [f"seed{seed}"])])
    folder = settings.output_dir / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = settings.output_dir / "logs" / f"{name}.txt"
    if method.program == OURS:
        words = ours.command(pair, preset=method.preset, seed=seed or 0, output_dir=folder.parent, name=name)
        field = folder / "displacement.nii.gz"
    else:
        field, place = folder / "field.nii", [settings.peers_python, "-m", "benchmarks.peers", method.program]
        scans = [str(pair.files["fixed"]), str(pair.files["moving"]), str(field), str(folder / "report.json")]
        words = [*place, *scans, str(settings.threads), method.preset]
    outcome = measured(words, log=log, threads=settings.threads, device=settings.device)
    line |= _told(method, outcome, folder=folder)
    if line["status"] == "done":
        line |= judged(field, pair)
    if not settings.keep_fields:
        shutil.rmtree(folder)
    return line


def _told(method: Method, outcome: Outcome, *, folder: Path) -> dict[str, Any]:
    """Return status, seconds and memory of a run, and what the program says of itself."""
    if outcome.status == CANNOT_RUN and method.program != OURS:
        return {"status": "left out", "reason": outcome.last_line}
    if outcome.status:
        return {"status": "failed", "reason": f"exit status {outcome.status}: {outcome.last_line}"}
    found = ours.report(folder) if method.program == OURS else json.loads((folder / "report.json").read_text())
    seconds = {"whole": outcome.seconds, **found.pop("seconds")}
    return {"status": "done", **found, "seconds": seconds, "peak_mib": outcome.peak_mib}


def judged(field: Path | None, pair: Pair) -> dict[str, Any]:
    """Return the referee's numbers, or how it failed.

    The referee runs in a process of its own, because it needs as much memory as a method.

    Args:
        field: path of the field, None for no registration.
        pair: has files.
    """
    words = [sys.executable, "-m", "benchmarks.evaluate", *([str(field)] if field else [])]
    words += [f"--{key}={path}" for key, path in pair.files.items()]
    run = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        return {"status": "failed", "reason": f"the field cannot be judged: {last}"}
    return dict(json.loads(run.stdout))


def loaded_mib(files: Mapping[str, Path], *, settings: Settings) -> float | None:
    """Measure the memory of a process that imports what our method imports and reads the pair, without a fit.

    Args:
        files: of the pair.
        settings: of all runs.

    Returns:
        Peak MiB; None if the process fails.
    """
    words = [sys.executable, "-m", "benchmarks.ours", str(files["fixed"]), str(files["moving"])]
    words.append(str(settings.output_dir / "runs"))
    log = settings.output_dir / "logs" / "loaded.txt"
    outcome = measured(words, log=log, threads=settings.threads, device=settings.device)
    return None if outcome.status else outcome.peak_mib


def circumstances() -> dict[str, Any]:
    """Return the date, the machine and the commit; a + behind the commit says that tracked files differed."""
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": where, "commit": _commit()}


def _commit() -> str | None:
    """Return the short commit of the checkout, None outside of one."""
    if not shutil.which("git"):
        return None
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    return head.stdout.strip() + ("+" if changed else "") if head.returncode == 0 else None
