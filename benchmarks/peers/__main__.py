"""Runs one peer on one pair in this process.

``python -m benchmarks.peers NAME FIXED MOVING FIELD REPORT THREADS PRESET``

It writes FIELD, the displacement field, and REPORT, JSON with the version, the device and the seconds by stage. When
the peer cannot run here, it prints one line and ends with status 3.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.peers.common import LeftOutError

CANNOT_RUN = 3


def main(name: str, fixed: str, moving: str, field: str, report: str, threads: str, preset: str) -> None:
    """Run a peer and write its field and its report.

    Args:
        name: of the module here.
        fixed: the fixed scan.
        moving: the moving scan.
        field: path of the field.
        report: path of the report.
        threads: that every library may use.
        preset: of the peer.
    """
    peer = importlib.import_module(f"benchmarks.peers.{name}")
    try:
        found = peer.register(Path(fixed), Path(moving), Path(field), threads=int(threads), preset=preset)
    except LeftOutError as reason:
        print(reason, file=sys.stderr)
        sys.exit(CANNOT_RUN)
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
