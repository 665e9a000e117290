"""The result of a fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ncf.fit.field import FieldSpace
from ncf.fit.initial_transform import Evidence
from ncf.fit.rounding import Rounded


@dataclass(frozen=True)
class LevelRecord:
    """How one level of a fit went.

    Attributes:
        name: of the level.
        shape: of its image lattice.
        seconds: that it took.
        losses: the value of every term at every iteration.
        nothing: the loss of a zero field on this level.
    """

    name: str
    shape: tuple[int, int, int]
    seconds: float
    losses: dict[str, list[float]]
    nothing: float

    @property
    def total(self) -> float:
        """The loss after the last iteration."""
        return sum(values[-1] for values in self.losses.values())


@dataclass(frozen=True)
class SearchEvidence:
    """What was compared after a search, by the loss of the fit on its first level with that start.

    Attributes:
        nothing: the loss of a field that is zero everywhere.
        found: the loss of the field that was found.
        taken: True where the network was taught that field before its first level.
    """

    nothing: float
    found: float
    taken: bool


@dataclass(frozen=True)
class StartEvidence:
    """How a neighbour's network compares as a start, by the loss of the fit on its first level.

    Attributes:
        neighbour: the name of the pair whose network it is.
        nothing: the loss of no motion, by the headers.
        found: the loss of the neighbour's motion.
        taken: True where the result comes from that start.
        why: in words.
        seconds: that the comparison and the fit from that start took.
    """

    neighbour: str
    nothing: float
    found: float
    taken: bool
    why: str
    seconds: float = 0.0


@dataclass(frozen=True)
class ContrastEvidence:
    """As what a pair was compared.

    Attributes:
        chosen: ``same`` for one contrast, ``different`` for two.
        why: in words.
        agreement: of the contrasts, -1 to 1, None where nobody asked (`ncf.fit.contrast.Compared`).
        bend: of the relation between the intensities, likewise.
        earned: share of the loss that the motion between two contrasts removed.
        moved: False where that was too little, and the initial transform stands.
        by_edges: True where about as many structures are inverted as not, so that edges alone agree.
    """

    chosen: str
    why: str
    agreement: float | None = None
    bend: float | None = None
    earned: float | None = None
    moved: bool = True
    by_edges: bool = False


@dataclass(frozen=True)
class Fit:
    """The result of a fit, and what is needed to compute its field again.

    Attributes:
        field_vox: (1, 3, W, H, D), on the fixed grid, in its voxels, fixed to moving. It follows from the rounded
            weights and offsets that are kept here.
        weights: parameters of the network, rounded.
        offsets: (1, 3, w, h, d), added to the network's output, rounded; or None.
        modules: class names of the network's modules, to recognise the network later.
        space: where the field lives.
        control_points: nodes of the control lattice.
        history: one entry a level.
        attempt: 1, unless the fit diverged and was tried again.
        alignment_s: seconds that the search for an initial transform took.
        evidence: how the transform that the search found compares with the headers; None where it left the headers
            alone.
        search_s: seconds that the search for large motion took, with the teaching.
        search: how what the search found compares with no motion; None where there was no search.
        contrast: as what the pair was compared; None where there was no choice.
        transform: ``deformable``; or ``rigid`` or ``affine``, where the field is that of such a map, which
            ``space.initial`` is.
        background: False where the fit looked at the body of the fixed scan alone, because with all of the scan it
            diverged.
        start: how the network of a neighbour compares as a start; None where there was none.
    """

    field_vox: torch.Tensor
    weights: dict[str, Rounded]
    offsets: Rounded | None
    modules: list[str]
    space: FieldSpace
    control_points: int
    history: list[LevelRecord]
    attempt: int
    alignment_s: float = 0.0
    evidence: Evidence | None = None
    search_s: float = 0.0
    search: SearchEvidence | None = None
    contrast: ContrastEvidence | None = None
    transform: str = "deformable"
    background: bool = True
    start: StartEvidence | None = None
