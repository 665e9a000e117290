"""`torchrun` as the engine: every rank registers its share of the tasks; no rank waits for another or shares gradients.

``python -m torch.distributed.run --standalone --nproc_per_node=2 -m ncf.cohort.ranks TASKS.json``
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from ncf.cohort.worker import Call, Outcome, Report, Resources, Task, prepare_process
from ncf.core.errors import PairError

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = "outcomes_{rank}.jsonl"


def run(tasks: Sequence[Task], report: Report, *, call: Call, resources: Resources) -> None:
    """Do every task in a rank on this machine, and then report the outcomes.

    Args:
        tasks: of the cohort.
        report: is called with each outcome.
        call: what a rank does with a task.
        resources: what the ranks may use.

    Raises:
        PairError: a rank died. What is done is kept, and a second run goes on from there.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "tasks.json"
        told = {"tasks": [asdict(task) for task in tasks], "call": [call.__module__, call.__qualname__]}
        told |= {"threads": resources.threads, "devices": list(resources.devices)}
        listed.write_text(json.dumps(told), encoding="utf-8")
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={min(resources.workers, len(tasks))}",
        ]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(resources.threads)}
        ended = subprocess.run([*launch, "-m", "ncf.cohort.ranks", str(listed)], env=variables, check=False)
        for outcomes in sorted(Path(folder).glob(OUTCOMES.format(rank="*"))):
            for line in outcomes.read_text(encoding="utf-8").splitlines():
                report(Outcome(**json.loads(line)))
    if ended.returncode:
        raise PairError(
            f"a rank of torchrun ended with status {ended.returncode}; run the command again to go on from here"
        )


def main(listed: Path) -> None:
    """Do the share of this rank, and write one line for each outcome to a file beside the list.

    Args:
        listed: the JSON file of the tasks.
    """
    rank, ranks, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    told = json.loads(listed.read_text(encoding="utf-8"))
    devices = told["devices"]
    prepare_process(told["threads"], devices[here % len(devices)] if devices else None)
    module, name = told["call"]
    call = getattr(import_module(module), name)
    with (listed.parent / OUTCOMES.format(rank=rank)).open("a", encoding="utf-8") as file:
        for entry in told["tasks"][rank::ranks]:
            task = Task(**{**entry, "config_files": tuple(entry["config_files"])})
            file.write(json.dumps(asdict(call(task))) + "\n")
            file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
