"""The loss of a network on one level of one pair, as a function without arguments.

Here the path of the method is written once: coordinates -> network -> control values -> field on the level -> warp ->
named terms. It must not know optimisers, engines, or which terms there are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from ncf.fit.field import FieldSpace
from ncf.fit.following import Followed
from ncf.fit.guidance import GuidePoints
from ncf.fit.label_guidance import LabelGuides
from ncf.fit.pyramid import LevelImages
from ncf.fit.terms import Sampled, WeightedSum
from ncf.space.grids import Lattice, lattice_over
from ncf.space.interpolation import Upsampler
from ncf.space.sampling import PADDING_NOISE, Warp


@dataclass(frozen=True)
class Standing:
    """How a field stands on a level.

    A field that points out of the moving image has no loss left, so the loss alone does not show a good fit.

    Attributes:
        loss: the sum of all terms.
        overlap: the share of the fixed data that meets moving data, 0 to 1; nan where the fixed image has no data.
    """

    loss: float
    overlap: float


class Objective:
    """Computes every loss term for the network's present weights; a float32 scalar each, by name.

    Args:
        network: positions to offsets.
        loss: named terms.
        warp: reads the moving image.
        images: the pair on the level.
        space: where the field lives.
        control: the lattice on which the network is evaluated.
        amp: True evaluates the network in bfloat16; everything after it stays float32.
        guides: points that a person has named, on the level, or None.
        labels: what label maps ask, on the level, or None.
        follow_within: nodes by which the field moves before the moving image is read again (`Followed`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: WeightedSum,
        warp: Warp,
        images: LevelImages,
        space: FieldSpace,
        control: Lattice,
        amp: bool,
        guides: GuidePoints | None = None,
        labels: LabelGuides | None = None,
        follow_within: float = 0.0,
    ) -> None:
        device, step = images.fixed.device, images.lattice.step_vox
        self.network, self.loss, self.warp, self.images, self.amp = network, loss, warp, images, amp
        self.space, self.control, self.guides, self.labels = space, control, guides, labels
        self.coordinates = space.network_input(control, device)
        self.upsample = Upsampler(control, images.lattice, order=space.order, device=device)
        self.unit = space.unit_vox(step, device)
        self.visited_nodes = lattice_over(images.lattice.shape, images.lattice.shape).points(device)[None]
        self.visited_nodes += torch.tensor(images.offset, device=device).view(1, 3, 1, 1, 1)
        self.control_unit = space.unit_vox(control.step_vox, device)
        self.offsets: torch.Tensor | None = None
        self.refine: Upsampler | None = None
        self.followed = Followed(follow_within, images.fixed_weight)

    def __call__(self) -> dict[str, torch.Tensor]:
        """Return the weighted value of each term, by name."""
        values = self._values()
        return self.loss(self._sampled(self._field(values), values))

    def free_offsets(self, lattice: Lattice) -> torch.Tensor:
        """Add free offsets on a finer lattice.

        From now on the control values are those of ``lattice``: the network's output, interpolated to it, plus these
        offsets.

        Args:
            lattice: over the fixed image.

        Returns:
            A parameter (1, 3, *lattice.shape), zero, in the network's unit.
        """
        device, order = self.coordinates.device, self.space.order
        self.refine = Upsampler(self.control, lattice, order=order, device=device)
        self.upsample = Upsampler(lattice, self.images.lattice, order=order, device=device)
        self.control_unit = self.space.unit_vox(lattice.step_vox, device)
        self.offsets = torch.zeros(1, 3, *lattice.shape, device=device, requires_grad=True)
        return self.offsets

    @torch.no_grad()
    def difference(self) -> float:
        """Return the root mean square of what no scale and offset of the fixed intensities explains, 0 to 1.

        Where both images have data. Another scale and offset of one image would look like motion that is left.
        """
        values = self._values()
        state = self._sampled(self._field(values), values)
        weight, total = state.weight, state.weight.sum().clamp(min=PADDING_NOISE)
        # `warped` is drawn to `fixed` where the weight is below 1
        moving = state.fixed + (state.warped - state.fixed) / weight.clamp(min=PADDING_NOISE)
        fixed, moving = (v - (v * weight).sum() / total for v in (state.fixed, moving))
        scale = (weight * fixed * moving).sum() / (weight * fixed**2).sum().clamp(min=PADDING_NOISE)
        return float(((weight * (moving - scale * fixed) ** 2).sum() / total).sqrt())

    @torch.no_grad()
    def of_doing_nothing(self) -> dict[str, torch.Tensor]:
        """Return the terms for a field that is zero everywhere."""
        nothing = self._nothing()
        return self.loss(self._sampled(self._field(nothing), nothing))

    @torch.no_grad()
    def of_field(self, field_vox: torch.Tensor, lattice: Lattice) -> dict[str, torch.Tensor]:
        """Return the terms for a field that is given instead of the network's.

        Args:
            field_vox: (1, 3, W, H, D), in fixed voxels, without the initial transform.
            lattice: of the field, over the fixed grid.
        """
        values = self.space.values_of(field_vox, lattice, self.control)
        return self.loss(self._sampled(self._field(values), values))

    def of_displacement(self, field: torch.Tensor) -> tuple[dict[str, torch.Tensor], float]:
        """Return the terms for a displacement that no control values give, such as an affine one.

        Args:
            field: (1, 3, W, H, D), in nodes of the level, without the initial transform; it may have a gradient.

        Returns:
            The terms, and how many fixed nodes with data meet moving data.
        """
        state = self._sampled(field, torch.zeros_like(self.coordinates))
        return self.loss(state), float(state.weight.sum())

    def at_rest(self) -> Standing:
        """Return how a field stands that is zero everywhere."""
        return self._standing(self._nothing())

    @torch.no_grad()
    def now(self) -> Standing:
        """Return how the present field stands."""
        return self._standing(self._values())

    @torch.no_grad()
    def overlap_at_rest(self) -> float:
        """Return the share of the fixed data that meets moving data where the field is zero (`Standing.overlap`)."""
        nothing = self._nothing()
        return self._overlap(self._sampled(self._field(nothing), nothing))

    @torch.no_grad()
    def _standing(self, values: torch.Tensor) -> Standing:
        """Return how the field of control values stands."""
        state = self._sampled(self._field(values), values)
        return Standing(sum(torch.stack(list(self.loss(state).values())).tolist()), self._overlap(state))

    def _overlap(self, state: Sampled) -> float:
        """Return the share of the fixed data that meets moving data."""
        return float(state.weight.sum() / self.images.fixed_weight.sum())

    def _nothing(self) -> torch.Tensor:
        """Return the control values of a field that is zero everywhere."""
        return torch.zeros_like(self.coordinates if self.offsets is None else self.offsets)

    def _values(self) -> torch.Tensor:
        """Return the control values (1, 3, w, h, d) in the network's unit: its output, plus the offsets, if any."""
        with self._precision():
            values = self.network(self.coordinates)
        if self.offsets is None or self.refine is None:
            return values.float()
        return self.refine(values.float()) + self.offsets

    def _field(self, values: torch.Tensor) -> torch.Tensor:
        """Return the field of control values, (1, 3, W, H, D), in nodes of the level."""
        return self.upsample(values * self.unit)

    def _precision(self) -> AbstractContextManager:
        """Return the context in which the network is evaluated: bfloat16 or as it is."""
        return torch.autocast(self.coordinates.device.type, torch.bfloat16) if self.amp else nullcontext()

    def _sampled(self, field: torch.Tensor, values: torch.Tensor) -> Sampled:
        """Return the state of the fit for a field (1, 3, W, H, D) in nodes and the control values it comes from."""
        images = self.images
        self.followed.look(field)
        moving, weight = self.followed("moving", self._read, field)
        return Sampled(
            warped=torch.lerp(images.fixed, moving, weight),
            fixed=images.fixed,
            weight=weight,
            field=field,
            control=values * self.control_unit,
            visited_nodes=self.visited_nodes,
            moving_shape=images.visited.shape,
            guides=self.guides,
            labels=self.labels,
            followed=self.followed,
        )

    def _read(self, field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the moving image by a field in nodes, and where both images have data, each (1, 1, W, H, D)."""
        moving, weight = self.warp.data(self.images.moving, field, self.images.to_moving)
        # what lies outside the moving image counts for nothing; the weight has no gradient, so that the fit gains
        # nothing by pushing data there
        return moving, self.images.fixed_weight * weight
