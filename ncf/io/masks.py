"""Masks of structures put together to one label map; where they overlap, a code of its own stands for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np

from ncf.core.labels import Labels, listed

OVERLAP = "structures overlap"  # how the line begins that tells it


class Codes:
    """A label map that grows by one structure after another.

    Args:
        shape: (W, H, D).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.volume = np.zeros(shape, dtype=np.int32)
        self._code: dict[tuple[int, ...], int] = {(): 0}  # by the labels that meet

    def add(self, label: int, mask: np.ndarray, box: tuple[slice, ...] | None = None) -> None:
        """Add a structure.

        Args:
            label: its number.
            mask: bool (w, h, d), of the box.
            box: where in the map; by default all of it.
        """
        part = self.volume if box is None else self.volume[box]
        there, place = np.unique(part[mask], return_inverse=True)
        groups = {code: labels for labels, code in self._code.items()}
        met = [(*(n for n in groups[int(code)] if n != label), label) for code in there]
        part[mask] = np.array([self._code.setdefault(labels, len(self._code)) for labels in met], np.int32)[place]

    def finished(self, names: Mapping[int, str], note: Callable[[str], None]) -> tuple[np.ndarray, Labels]:
        """Return the codes and what they stand for; of structures that overlap the smaller one is on top.

        Args:
            names: of all structures, by number.
            note: takes a line about structures that overlap.
        """
        counts = np.bincount(self.volume.reshape(-1), minlength=len(self._code))
        groups = {code: labels for labels, code in self._code.items() if labels and counts[code]}
        sizes: dict[int, int] = {}
        for code, labels in groups.items():
            for label in labels:
                sizes[label] = sizes.get(label, 0) + int(counts[code])
        members = {code: tuple(sorted(labels, key=lambda n: (sizes[n], n))) for code, labels in groups.items()}
        shared: dict[tuple[int, int], int] = {}
        for code, labels in members.items():
            for pair in combinations(sorted(labels), 2):
                shared[pair] = shared.get(pair, 0) + int(counts[code])
        if shared:
            told = sorted(shared, key=lambda pair: -shared[pair])
            words = listed(f"{names.get(a, a)} and {names.get(b, b)} ({shared[a, b]} voxels)" for a, b in told)
            note(f"{OVERLAP}: {words}; each is measured whole, and in one map the smaller lies on top")
        return self.volume, Labels(members, dict(names))
