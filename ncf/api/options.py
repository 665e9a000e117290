"""The options of a registration from Python, checked as soon as they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch

from ncf.core.errors import PairError
from ncf.core.labels import Wanted, sides_of
from ncf.core.names import AUTO, DEFORMABLE, MODALITIES, TRANSFORMS
from ncf.core.presets import MOST_SEED, config_files
from ncf.fit.device import check_device

LABEL_NUMBERS = ("rigid_label", "keep_volume_label")


@dataclass(frozen=True)
class Options:
    """How pairs are registered.

    Attributes:
        preset: the name of one, such as ``fast``, or the path of a JSON overlay of your own.
        modality: ``same`` or ``different`` overrules ``auto``, which asks the scans whether they show one contrast or
            two, as CT and MR do.
        transform: ``rigid``, ``affine`` or ``deformable``: what the map may do.
        guide_labels: True lets labels with equal numbers guide the fit.
        rigid_label: a fixed label, or several, in which the map stays rigid, each by itself.
        keep_volume_label: a fixed label, or several, whose volume is kept.
        seed: of the network's first weights.
        labels: names or numbers of the labels that count (`ncf.core.labels.sides_of`); by default all.
        device: as torch names it; by default a CUDA device where there is one.
        align_centres: True starts with the centres of both grids together.
        progress: True shows a bar.

    Raises:
        PairError: there is no such preset, modality, transform or device; the seed is no whole number from zero; labels
            are no numbers above zero, or are wanted of a map that does not bend.
    """

    preset: str | None = None
    modality: str = AUTO
    transform: str = DEFORMABLE
    guide_labels: bool = False
    rigid_label: Wanted | Sequence[Wanted] | None = None
    keep_volume_label: Wanted | Sequence[Wanted] | None = None
    seed: int = 0
    labels: str | Sequence[Wanted] | None = None
    device: str | torch.device | None = None
    align_centres: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        config_files(self.preset)
        if self.modality not in MODALITIES:
            raise PairError(f"modality is one of {', '.join(MODALITIES)}, got {self.modality!r}")
        if self.transform not in TRANSFORMS:
            raise PairError(f"transform is one of {', '.join(TRANSFORMS)}, got {self.transform!r}")
        if not isinstance(self.guide_labels, bool):
            raise PairError(f"guide_labels is True or False, got {self.guide_labels!r}")
        wanted = [name for name in ("guide_labels", *LABEL_NUMBERS) if getattr(self, name) not in (None, False)]
        if wanted and self.transform != DEFORMABLE:
            raise PairError(f"{wanted[0]} is for maps that bend, not with transform={self.transform!r}")
        for name in LABEL_NUMBERS:
            _named(name, getattr(self, name))
        sides_of(self.labels)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= MOST_SEED:
            raise PairError(f"seed must be a whole number from zero to {MOST_SEED}, got {self.seed!r}")
        if self.device is not None:
            check_device(self.device)

    @property
    def config_files(self) -> tuple[str, ...]:
        """The config files of a registration: the base and the overlay."""
        return config_files(self.preset)

    @property
    def overrides(self) -> dict[str, Any]:
        """The entries of the config that are overridden."""
        given: dict[str, Any] = {"seed": self.seed, "align_centres": self.align_centres, "progress": self.progress}
        if self.modality != AUTO:
            given["modality"] = self.modality
        if self.transform != DEFORMABLE:
            given["transform"] = self.transform
        if self.guide_labels:
            given["guide_labels"] = True
        if self.labels is not None:
            given["labels"] = self.labels if isinstance(self.labels, str) else list(self.labels)
        labels = {name: _named(name, getattr(self, name)) for name in LABEL_NUMBERS}
        given |= {name: numbers for name, numbers in labels.items() if numbers}
        return given if self.device is None else {**given, "device": self.device}


def _named(option: str, given: Any) -> list[Wanted]:
    """Return one label or several as a list; raise PairError for anything but names and numbers above zero."""
    if given is None:
        return []
    several = [given] if isinstance(given, (Integral, str)) else given
    try:
        found = [label if isinstance(label, str) else int(label) for label in several if _is_label(label)]
        if len(found) == len(several) > 0:
            return found
    except TypeError:
        pass
    raise PairError(f"{option} is a label number above zero, or several, got {given!r:.60}")


def _is_label(label: Any) -> bool:
    return bool(label.strip()) if isinstance(label, str) else isinstance(label, Integral) and int(label) > 0
