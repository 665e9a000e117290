"""The start of a command: what is left out of the libraries is not missing afterwards, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ncf.core.threads import SETTINGS
from tests.conftest import ROOT

CHECKS = """
import gc, os, sys
from ncf.core.startup import LIBRARIES, load_libraries
finders = list(sys.meta_path)
load_libraries()
assert gc.isenabled() and gc.get_freeze_count() > 10000  # the end of the process looks at none of them
assert os.environ["GOMP_SPINCOUNT"] and sys.meta_path == finders
assert set(LIBRARIES) <= set(sys.modules)
left_out = {"scipy.signal", "scipy.stats", "matplotlib", "pydicom"}
assert not left_out & set(sys.modules), left_out & set(sys.modules)
count = len(sys.modules)
load_libraries()
assert len(sys.modules) == count
import matplotlib.figure
import pydicom
import scipy.signal
assert callable(scipy.signal.hilbert) and callable(pydicom.dcmread)
from ignite.handlers import Checkpoint
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.bundle import ConfigWorkflow
"""


def test_what_is_left_out_can_be_imported_later() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    subprocess.run([sys.executable, "-c", CHECKS], env={**environment, "PYTHONPATH": str(ROOT)}, check=True)


SPINNING = """
import os, time
import torch
from ncf.core.threads import calm_threads
torch.set_num_threads(len(os.sched_getaffinity(0)))
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # as on a machine whose cores are busy
values, found = torch.rand(2**17), []
def seconds():
    at = time.perf_counter()
    for _ in range(40):
        product = values.mul(1.5)
    found.append(product)
    return time.perf_counter() - at
alone = seconds()
os.sched_getaffinity = lambda _: range(torch.get_num_threads())  # what OpenMP saw when it was loaded
with calm_threads():
    time.sleep(0.2)  # the team is made
    calm = seconds()
assert torch.equal(*found)
print(alone, calm)
"""


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores")
def test_threads_that_wait_hardly_spin_where_nobody_could_say_so_in_time() -> None:
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    told = subprocess.run([sys.executable, "-c", SPINNING], env=environment, capture_output=True, text=True, check=True)
    alone, calm = map(float, told.stdout.split())
    assert calm < alone / 3, told.stdout


HEAVY = {"numpy", "torch", "monai", "scipy", "nibabel", "tqdm", "filelock", "matplotlib", "pydicom", "logging.config"}


def test_help_loads_no_heavy_library() -> None:
    code = f"""
import sys
from ncf.commands.main import main
main(["register", "--help"])
sys.exit(str({HEAVY} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == "set()" and ended.stdout.startswith("usage: ncf register")
