"""``ncf files``: which DICOM volumes a folder holds."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, true_or_false
from ncf.core.errors import PairError
from ncf.core.scan_paths import is_there


@SetParseFn(str)
def files(folder: str, *, json: str = "false") -> CallJob:
    """List the DICOM volumes below FOLDER, numbered, and say why one cannot be read.

    Every command takes FOLDER#3 for volume 3. Series, times, echoes and stacks are volumes of their own. Where there is
    no volume at all, the exit status is 1.

    Args:
        folder: a folder with its subfolders, a DICOMDIR, or one DICOM file.
        json: true prints the list as JSON.
    """
    return CallJob(partial(_list, absolute("folder", folder), true_or_false("json", json)), libraries=False)


def _list(path: Path, as_json: bool) -> None:
    from ncf.io.dicom.listing import in_lines, listing

    if not is_there(path):
        raise PairError(f"cannot open {path} (No such file or directory); correct the path")
    told = listing(path)
    print(json.dumps(told, indent=2, ensure_ascii=False) if as_json else in_lines(told))
    if not told["volumes"]:
        raise SystemExit(1)
