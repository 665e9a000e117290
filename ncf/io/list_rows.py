"""What the forms of lists share: JSON read with care, its entries as rows, and paths relative to their list."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.paths import expanded, file_there, missing, shortened, there

Rows = list[dict[str, str]]
MAC_SHADOW = "._"  # macOS writes such a file beside every other file on foreign disks


def json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a data set.

    Raises:
        PairError: it cannot be read, is nested without end, names an entry twice, or is no object.
    """

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object, unless it names an entry twice: all but the last would be lost."""
        twice = next((key for n, (key, _) in enumerate(pairs) if key in [k for k, _ in pairs[:n]]), None)
        if twice is not None:
            raise ValueError(f"the entry {twice!r:.40} is there twice")
        return dict(pairs)

    try:
        content = json.loads(file_there(path).read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except PairError:
        raise
    except RecursionError as error:
        raise PairError(f"cannot read the data set {path}: it is nested too deep; is it a list of pairs?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        what = f"it is no JSON ({error})" if path.suffix.lower() == ".json" else "it is neither CSV nor JSON"
        raise PairError(f"cannot read the data set {path}: {what}; give a list of pairs as .csv or .json") from error
    except (OSError, ValueError) as error:
        raise PairError(f"cannot read the data set {path}: {error}; correct it") from error
    if not isinstance(content, dict):
        raise PairError(f'{path}: expected {{"pairs": [...]}}, {{"images": [...]}} or a Learn2Reg dataset')
    return content


def list_in(content: dict[str, Any], name: str, path: Path) -> list[Any]:
    """Return the list of a name in a JSON object; PairError where there is something else, [] where there is none."""
    found = content.get(name, [])
    if not isinstance(found, list):
        raise PairError(f"{path}: {name!r} is {found!r:.40}, expected a list [...]; correct it")
    return found


def rows_of(entries: Iterable[Any], path: Path, *, what: str) -> Rows:
    """Return entries of a JSON list as rows, with absolute paths.

    Args:
        entries: of the list.
        path: of its file.
        what: an entry in words, for the message.

    Raises:
        PairError: an entry is no object of texts.
    """
    rows = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
            raise PairError(f"{path}, row {number}: expected {what}, got {entry!r:.80}")
        rows.append(
            {key: value if key == "name" else absolute_in(path, value) for key, value in entry.items() if value}
        )
    return rows


def absolute_in(source: Path, value: str) -> str:
    """Return a path of a list, which is relative to the list's file."""
    return str(source.parent / expanded(value))


def check_listed(path: str, at: str, key: str) -> None:
    """Raise PairError unless the file of a row is there.

    Args:
        path: of the file.
        at: the row, for the message.
        key: what the file is to the row.
    """
    if missing(path):
        raise PairError(f"{at}: {key} {shortened(path)} is not there; correct the row")
    if Path(path).name.startswith(MAC_SHADOW):
        raise PairError(f"{at}: {key} {path} is what macOS wrote beside a file; name the file itself")
    there(path, f"{at}: {key}")
