"""The paper's table 1: which pairs it is about, what it published, and what can be known about both.

This room must not know how a pair is registered or judged.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from ncf.core.errors import PairError
from ncf.core.names import image_stem
from ncf.io.pair_lists import Pairs, checked, read_pairs

CASES = 8  # paper section 4.3.1: "the first 8 samples"
LABELS = ("fixed_label", "moving_label")


class Published(NamedTuple):
    """A row of table 1.

    Attributes:
        both: lung Dice over both kinds of pairs (Dice 1945, doi:10.2307/1932409).
        intra: lung Dice over the pairs within a patient.
        parameters: in millions.
    """

    both: float
    intra: float
    parameters: float | None


PUBLISHED = {
    "3D Slicer (elastix)": Published(0.873, 0.883, None),
    "RAN3": Published(0.935, 0.935, 0.4),
    "NCF": Published(0.936, 0.942, 0.06),
}
NOTE = """\
Rows "as published" are copied from table 1 of the paper; we did not measure them. Intra: the first {cases} cases of the
archive, inhale onto exhale (section 4.3.1). Both: all {ordered} ordered pairs of the {scans} scans, exhale and inhale,
of the first {patients} cases. The paper names no scans, it says "56 pairs", which is what 8 scans give in both orders,
and heads the column inter- and intra-patient, which 4 patients with 2 scans each would fit; it may have chosen 8
others. Labels were carried by nearest neighbour; the paper does not say how."""


class Experiment(NamedTuple):
    """All pairs, each once, and the names of those that belong to the two columns of the table.

    Attributes:
        pairs: all pairs.
        intra: names of the pairs within a patient.
        both: names of the ordered pairs of all scans.
    """

    pairs: Pairs
    intra: list[str]
    both: list[str]

    def note(self) -> str:
        """Say which cases these are, and why the paper's cases cannot be known."""
        scans = 2 * (len(self.intra) // 2)
        numbers = {"cases": len(self.intra), "scans": scans, "patients": scans // 2}
        return NOTE.format(ordered=len(self.both), **numbers)


def experiment(data_dir: str | Path, *, cases: int = CASES) -> Experiment:
    """Return the pairs of table 1 in a folder laid out as Zenodo's record 3835682.

    Args:
        data_dir: the folder.
        cases: number of pairs within a patient; half as many patients give the scans for all ordered pairs.

    Raises:
        PairError: the folder has another layout, too few cases, or a case without lung masks.
    """
    listed = read_pairs(data_dir)
    if cases < 2 or len(listed) < cases:
        raise PairError(f"{data_dir} holds {len(listed)} cases, the experiment wants {cases} (2 or more)")
    within = listed[:cases]
    for row in within:
        if not set(LABELS) <= set(row):
            raise PairError(f"{data_dir}: {row['name']} has no lung masks, and the table compares them")
    scans = [_scan(row, key) for row in within[: cases // 2] for key in ("fixed", "moving")]
    ordered = {
        (fixed["image"], moving["image"]): {
            "name": f"{image_stem(fixed['image'])}__{image_stem(moving['image'])}",
            "fixed": fixed["image"],
            "moving": moving["image"],
            **dict(zip(LABELS, (fixed["label"], moving["label"]), strict=True)),
        }
        for fixed, moving in permutations(scans, 2)
    }
    both = [row["name"] for row in ordered.values()]
    names = []
    for row in within:
        shared = ordered.setdefault((row["fixed"], row["moving"]), row)
        shared |= {key: row[key] for key in row if key != "name"}  # with its landmarks
        names.append(shared["name"])
    return Experiment(checked(list(ordered.values()), where=str(data_dir)), names, both)


def _scan(row: dict[str, str], key: str) -> dict[str, str]:
    """Return image and label of one side of a pair."""
    return {"image": row[key], "label": row[f"{key}_label"]}
