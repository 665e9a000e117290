"""The start of a command: what is left out of the libraries is not missing afterwards, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT

CHECKS = """
import os, sys
from scripts.startup import LIBRARIES, load_libraries
finders = list(sys.meta_path)
load_libraries()
assert os.environ["GOMP_SPINCOUNT"] and sys.meta_path == finders
assert set(LIBRARIES) <= set(sys.modules)
left_out = {"scipy.signal", "scipy.stats", "matplotlib", "torch.distributed.optim", "torch.distributed.tensor"}
assert not left_out & set(sys.modules), left_out & set(sys.modules)
import torch
weight = torch.ones(3, requires_grad=True)
adam = torch.optim.Adam([weight], lr=0.5)
weight.sum().backward()
adam.step()
assert all(abs(value - 0.5) < 1e-6 for value in weight.tolist())
assert not any(name.startswith("torch._dynamo.") for name in sys.modules)
count = len(sys.modules)
load_libraries()
assert len(sys.modules) == count
import matplotlib.figure
import scipy.signal
from torch.distributed.optim import ZeroRedundancyOptimizer
assert callable(scipy.signal.hilbert) and hasattr(ZeroRedundancyOptimizer, "consolidate_state_dict")
assert torch.compiler.disable(reason="a decorator without its function")(abs)(-1) == 1
import torch._dynamo.config
compiled = torch.compile(lambda x: 2 * x, backend="eager")
assert compiled(torch.ones(2)).tolist() == [2, 2] and "symbolic_convert" in dir(sys.modules["torch._dynamo"])
adam.step()
from ignite.handlers import Checkpoint
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.bundle import ConfigWorkflow
"""


def test_what_is_left_out_can_be_imported_later() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    subprocess.run([sys.executable, "-c", CHECKS], env={**environment, "PYTHONPATH": str(ROOT)}, check=True)
