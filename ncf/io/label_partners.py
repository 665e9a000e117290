"""The labels of two maps as partners: moving labels under the numbers of the fixed ones, by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import MetaTensor

from ncf.core.labels import LABELS, Labels, Wanted, alone, number_of, partners
from ncf.io.label_files import table_of

notes = logging.getLogger("ncf.notes")


def renamed(label: MetaTensor, sides: Sequence[tuple[Wanted, Wanted]]) -> MetaTensor:
    """Return a moving label map with the names of the fixed side, where a label is called otherwise there.

    Args:
        label: the moving one.
        sides: of `ncf.core.labels.sides_of`.
    """
    table = table_of(label)
    names, numbers = dict(table.names), {}
    for fixed, moving in sides:
        number = number_of(moving, sorted(table.of(table.members)), table.names) if fixed != moving else None
        if number is None:
            continue
        if table.names:
            names[number] = str(fixed)
        elif str(fixed).isdecimal():
            numbers[number] = int(fixed)
    return _with_table(label, Labels(table.members, names).numbered(numbers))


def matched(pair: Mapping[str, Any], sides: Sequence[tuple[Wanted, Wanted]] = ()) -> dict[str, Any]:
    """Return a pair whose moving labels have the numbers of the fixed labels of the same name.

    Args:
        pair: with ``fixed_label`` and ``moving_label``, or without them.
        sides: how labels are called on both sides (`ncf.core.labels.sides_of`).

    Raises:
        PairError: a name means two labels of one map.
    """
    if "moving_label" in pair and sides:
        pair = {**pair, "moving_label": renamed(pair["moving_label"], sides)}
    if not {"fixed_label", "moving_label"} <= set(pair):
        return dict(pair)
    fixed, moving = (table_of(pair[key]) for key in ("fixed_label", "moving_label"))
    if not fixed.names or not moving.names:
        if fixed.names or moving.names:
            side = "fixed" if fixed.names else "moving"
            notes.warning("note: labels: only the %s ones have names; equal numbers are partners", side)
        return dict(pair)
    theirs = _there(pair["moving_label"])
    numbers = partners(fixed, moving, fixed_labels=_there(pair["fixed_label"]), moving_labels=theirs)
    table = moving.numbered(numbers)
    for words in alone(fixed, table, fixed_labels=_there(pair["fixed_label"]), moving_labels=set(numbers.values())):
        notes.warning("note: labels: %s", words)
    return {**pair, "moving_label": _with_table(pair["moving_label"], table)}


def _there(label: MetaTensor) -> set[int]:
    """Return the labels of a map."""
    return table_of(label).of(label.as_tensor().unique().tolist())


def _with_table(label: MetaTensor, table: Labels) -> MetaTensor:
    """Return the same codes with another table."""
    return MetaTensor(label.as_tensor(), meta={**label.meta, LABELS: table})
