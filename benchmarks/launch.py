"""Runs one command and writes its wall time and peak memory: ``python launch.py REPORT COMMAND...``.

It is a process of its own that uses the standard library alone, because Linux counts the memory of the process that
starts a program into that program's peak: started from a large process, a small program looks large.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

KIB_PER_MIB, BYTES_PER_MIB = 2**10, 2**20


def main(report: str, *command: str) -> None:
    """Run a command, and end with its exit status.

    Args:
        report: path of a JSON file for the seconds, the peak MiB of the direct child, and its exit status.
        command: with its arguments.
    """
    begun = time.perf_counter()
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    unit = BYTES_PER_MIB if sys.platform == "darwin" else KIB_PER_MIB
    with open(report, "w", encoding="utf-8") as file:
        json.dump({"seconds": seconds, "peak_mib": usage.ru_maxrss / unit, "status": process.returncode}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
