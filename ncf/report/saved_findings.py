"""The file of findings about a result: warnings and notes in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ncf.core.files import load_json, save_json
from ncf.core.names import FINDINGS_FILE

WARNING, NOTE = "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One statement about a result.

    Attributes:
        level: `WARNING` or `NOTE`.
        text: for a person.
    """

    level: str
    text: str


def save_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Write findings to their file in the folder of a result.

    Raises:
        PairError: the file cannot be written.
    """
    save_json(folder / FINDINGS_FILE, {"findings": [asdict(finding) for finding in findings]})


def saved_warnings(folder: Path) -> list[str]:
    """Read the warnings about a result from its file of findings.

    Args:
        folder: of the result.

    Returns:
        Their texts; none where there is no such file.
    """
    if not (folder / FINDINGS_FILE).exists():
        return []
    return [str(told["text"]) for told in load_json(folder / FINDINGS_FILE)["findings"] if told["level"] == WARNING]
