"""Runs one peer on one pair in this process: ``python -m benchmarks.peers NAME FIXED MOVING FIELD REPORT THREADS PRESET``.

FIELD and REPORT are written: the displacement field, and JSON with the version, the device and the seconds by stage. Exit
status 3 and one line when the peer cannot run here.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.peers.common import LeftOutError

CANNOT_RUN = 3


def main(name: str, fixed: str, moving: str, field: str, report: str, threads: str, preset: str) -> None:
    """Nothing; the field and the report lie where they were asked for."""
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    try:
        found = peer.register(Path(fixed), Path(moving), Path(field), threads=int(threads), preset=preset)
    except LeftOutError as reason:
        print(reason, file=sys.stderr)
        sys.exit(CANNOT_RUN)
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
