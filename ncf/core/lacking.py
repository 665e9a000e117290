"""What may lie beside a complete result, and could not be made."""

from __future__ import annotations

from typing import NamedTuple


class Lacking(NamedTuple):
    """Why something beside a complete result could not be made: a line for each; none where all is there.

    Attributes:
        bounds: of bounds of its error.
        reports: of its report.
    """

    bounds: list[str]
    reports: list[str]
