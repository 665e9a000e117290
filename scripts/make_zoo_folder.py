"""Make the folder that MONAI's model zoo takes: ``python -m scripts.make_zoo_folder FOLDER``.

It holds ``ncf_registration/`` with configs, docs, models, the code, LICENSE and docs/data_license.txt: files that git
knows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "ncf_registration"  # task and method, as the zoo asks for
PARTS = ("configs", "docs", "models", "ncf", "scripts")
FILES = ("LICENSE", "pyproject.toml", "requirements.txt", "requirements-core.txt")


def make(target: Path) -> Path:
    """Copy the bundle into a folder of its own.

    Args:
        target: the folder that gets ``ncf_registration/``.

    Returns:
        The bundle's folder.

    Raises:
        FileExistsError: it is there already.
        subprocess.CalledProcessError: this is no checkout of git, which knows the files that belong to the bundle.
    """
    bundle = target.absolute() / NAME
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PARTS, *FILES], cwd=ROOT, check=True, capture_output=True, text=True
    )
    bundle.mkdir(parents=True)
    for name in filter(None, listed.stdout.split("\0")):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, bundle / name)
    return bundle


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scripts.make_zoo_folder FOLDER")
    try:
        print(make(Path(sys.argv[1])))
    except FileExistsError as error:
        sys.exit(f"error: {error.filename} is there already; choose another folder, or remove it")
