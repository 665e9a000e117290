"""The app that MONAI Label loads: it looks for a ``main.py`` in a folder and takes the class in it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for an unpacked bundle whose library is not installed

from ncf.label.app import App

__all__ = ["App"]
