"""Pictures leave nothing in the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

DRAWS = """
import os
from ncf.core.drawing import load_matplotlib
load_matplotlib()
assert "MPLCONFIGDIR" not in os.environ
from matplotlib.figure import Figure
figure = Figure()
figure.suptitle("a text")
figure.savefig("picture.png")
"""


def test_drawing_writes_the_picture_alone(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    hidden = {"HOME": str(home), "PYTHONPATH": str(ROOT), "TMPDIR": str(here)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    subprocess.run([sys.executable, "-c", DRAWS], cwd=here, env={**kept, **hidden}, check=True)
    assert [path.name for path in here.iterdir()] == ["picture.png"] and not list(home.iterdir())
