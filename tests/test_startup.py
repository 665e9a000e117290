"""The start of a command: what is left out of the libraries is not missing afterwards, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys

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
