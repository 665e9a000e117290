"""A head that nods: the map from a head and neck, as scanned, to the same one with its neck bent and its jaw opened.

Everything is a formula of a point in RAS millimetres, so the map is exact at any point. Rigid turns about the eight
joints from occiput/C1 to C7/T1 follow one another. Each joint turns what lies above its surface, and the turn fades in
smoothly below it: within one vertebra at the spine, and over more and more of the soft tissue away from it. The
surfaces dip in front and behind, so that skull and jaw turn whole, and rise at the sides, so that shoulders stay.
Before all that, the jaw turns about the axis through both temporomandibular joints. The torso stays.

Joints share the bend as their ranges of motion do (White and Panjabi, Clinical Biomechanics of the Spine, 1990). The
places come from the labels of organs: the skull base from the lower end of the brainstem, the spine from the cord, the
jaw from the mandible. The vertebrae are not labelled; each is given the same height.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BRAINSTEM, CORD, MANDIBLE = 1, 2, 7
RANGES_DEG = np.array([25, 20, 10, 15, 20, 20, 17, 9], float)  # occiput/C1, C1/C2, ..., C7/T1: flexion and extension
SHARES = RANGES_DEG / RANGES_DEG.sum()
VERTEBRA_MM = 16.0  # seven of them make a neck of 112 mm
BELOW_BRAINSTEM_MM = 5.0  # from its lower end to the first joint
BEFORE_CORD_MM = (6.0, 14.0)  # from the cord's middle to the first joint, and to the vertebral bodies
FADE_MM, FADE_SLOPE, FADE_LARGEST_MM = 7.0, 0.35, 30.0  # half of where a turn fades in: at the spine, its growth, most
SPINE_MM = 15.0  # radius of the spine
FRONT_MM = (2.0, 62.0)  # in front of a joint its surface begins and ends to dip
FRONT_DIP_MM = 40.0  # of the last joint's surface, to the notch of the breastbone; the first dips below the jaw
BEHIND_MM, BEHIND_DIP_MM = (15.0, 70.0), 20.0
SIDE_MM, SIDE_RISE_MM = (50.0, 120.0), 55.0  # of the last joint's surface; the first does not rise
JAW_INNER_MM, JAW_OUTER_MM = 15.0, 40.0  # where the jaw's turn fades in from its axis, and away beyond the chin
JAW_FADE_DEG = (16.0, 28.0)  # above the lower teeth, and behind the jaw
CLOSE_MM, ROUNDS, STEPS = 1e-6, 40, 4
NUDGE_MM = 1e-5  # of the difference quotients
LEAST_DET = 0.05  # of the map in the plane of y and z, for a step


@dataclass(frozen=True)
class Posture:
    """How a head and neck is bent; points are (..., 3), RAS mm.

    Attributes:
        joints: (8, 3), from the skull down.
        hinge: (2,), y and z of the jaw's axis.
        jaw_deg: polar angles about the hinge between which the jaw lies: lower and upper end. 0 is to the front.
        jaw_mm: its largest distance from the hinge.
        chin_z: of its lowest point.
        bend: of the skull against the torso, radians.
        opening: of the jaw, radians.
    """

    joints: np.ndarray
    hinge: np.ndarray
    jaw_deg: tuple[float, float]
    jaw_mm: float
    chin_z: float
    bend: float
    opening: float

    def there(self, points: np.ndarray) -> np.ndarray:
        """Return where points of the scanned posture lie in the bent one.

        Args:
            points: (..., 3), RAS mm.
        """
        moved = self._jaw_turned(np.asarray(points, np.float64))
        turns = self.bend * SHARES * self.turned(moved)
        for joint, turn in zip(self.joints, np.moveaxis(turns, -1, 0), strict=True):
            moved = _turned(moved, joint[1:], -turn)
        return moved

    def turned(self, points: np.ndarray) -> np.ndarray:
        """Return (..., 8): how much of each joint's turn the points take part in, from 0 to 1."""
        x, y, z = (np.asarray(points, np.float64)[..., axis, None] for axis in range(3))
        down = np.linspace(0, 1, len(self.joints))  # of the joints: 0 at the skull, 1 at the torso
        front, aside = y - self.joints[:, 1], np.abs(x - self.joints[:, 0])
        first_dip = self.joints[0, 2] - self.chin_z + FADE_MM
        front_dip = first_dip + down * (FRONT_DIP_MM - first_dip)
        dip = front_dip * _ramp(front, *FRONT_MM) + BEHIND_DIP_MM * _ramp(-front, *BEHIND_MM)
        surface = self.joints[:, 2] - dip + SIDE_RISE_MM * down * _ramp(aside, *SIDE_MM)
        beyond = np.maximum(np.sqrt(front**2 + aside**2 + 1) - SPINE_MM, 0)
        half = FADE_MM + (FADE_LARGEST_MM - FADE_MM) * np.tanh(FADE_SLOPE * beyond**2 / (beyond + 5) / FADE_LARGEST_MM)
        half = half * np.hypot(1, front_dip * _ramp_slope(front, *FRONT_MM))  # as wide across a steep surface
        return _ramp(z, surface + FADE_MM - 2 * half, surface + FADE_MM)

    def opened(self, points: np.ndarray) -> np.ndarray:
        """Return (...): how much of the jaw's turn the points take part in, from 0 to 1."""
        away = np.asarray(points, np.float64)[..., 1:] - self.hinge
        # counted from -240 to 120 degrees, so that the jump lies above the skull base
        angle = (np.degrees(np.arctan2(away[..., 1], away[..., 0])) + 240) % 360 - 240
        distance = np.hypot(away[..., 0], away[..., 1])
        low, high = self.jaw_deg
        wedge = _ramp(angle, low - JAW_FADE_DEG[1], low) * (1 - _ramp(angle, high, high + JAW_FADE_DEG[0]))
        reach = _ramp(distance, 0, JAW_INNER_MM) * (1 - _ramp(distance, self.jaw_mm, self.jaw_mm + JAW_OUTER_MM))
        return wedge * reach

    def _jaw_turned(self, points: np.ndarray) -> np.ndarray:
        """Return the points with the jaw opened."""
        return _turned(points, self.hinge, -self.opening * self.opened(points))

    def back(self, points: np.ndarray, start: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the points that `there` takes to given ones, by Newton's method.

        Args:
            points: (N, 3), RAS mm, of the bent posture.
            start: (N, 3), near the solution; without it, the bend is raised in steps.

        Returns:
            The points (N, 3) of the scanned posture; and which of them were found to CLOSE_MM (N,), bool.
        """
        if start is not None:
            return self._solved(points, start)
        found = points.copy()
        for step in range(1, STEPS + 1):
            part = step / STEPS
            found, known = replace(self, bend=part * self.bend, opening=part * self.opening)._solved(points, found)
        return found, known

    def _solved(self, points: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the points that `there` takes to given ones, and which were found; as `back`."""
        found, open_ = start.copy(), np.arange(len(points))
        for _ in range(ROUNDS):
            at = found[open_]
            reached = self.there(at)
            missed = (reached - points[open_])[:, 1:]
            still = np.abs(missed).max(axis=1) > CLOSE_MM
            open_, at, reached, missed = open_[still], at[still], reached[still], missed[still]
            if not len(open_):
                break
            # derivatives of y and z by y, then by z; x stays
            (a, c), (b, d) = (
                (self.there(at + nudge) - reached)[:, 1:].T / NUDGE_MM for nudge in NUDGE_MM * np.eye(3)[1:]
            )
            det = np.maximum(a * d - b * c, LEAST_DET)
            found[open_, 1] -= (d * missed[:, 0] - b * missed[:, 1]) / det
            found[open_, 2] -= (a * missed[:, 1] - c * missed[:, 0]) / det
        known = np.ones(len(points), bool)
        known[open_] = False
        return found, known

    def jacobian(self, points: np.ndarray) -> np.ndarray:
        """Return the 3x3 derivatives (N, 3, 3) of `there`, by central differences."""
        nudge = NUDGE_MM * np.eye(3)
        return np.stack([(self.there(points + n) - self.there(points - n)) / (2 * NUDGE_MM) for n in nudge], axis=-1)


def _turned(points: np.ndarray, centre: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return points turned in the plane of y and z about a centre (2,), each by its own angle (...) in radians."""
    y, z = points[..., 1] - centre[0], points[..., 2] - centre[1]
    cosine, sine = np.cos(angle), np.sin(angle)
    turned = (points[..., 0], centre[0] + cosine * y - sine * z, centre[1] + sine * y + cosine * z)
    return np.stack(turned, axis=-1)


def _ramp(values: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Return 0 below ``low``, 1 above ``high``, and a quintic between that has two continuous derivatives."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t**3 * (t * (6 * t - 15) + 10))


def _ramp_slope(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the derivative of `_ramp`."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(30 * (t * (1 - t)) ** 2 / (high - low))


def find_posture(label: np.ndarray, affine: np.ndarray, *, bend_deg: float, jaw_deg: float) -> Posture:
    """Find joints and jaw in the labels of a head and neck.

    Args:
        label: (W, H, D); 1 is the brainstem, 2 the spinal cord, 7 the mandible.
        affine: 4x4, voxel to RAS mm.
        bend_deg: of the skull against the torso, forwards.
        jaw_deg: by which the jaw opens.

    Raises:
        ValueError: one of the three organs is not labelled.
    """
    places = {}
    for organ, name in ((BRAINSTEM, "brainstem"), (CORD, "spinal cord"), (MANDIBLE, "mandible")):
        places[organ] = np.argwhere(label == organ) @ affine[:3, :3].T + affine[:3, 3]
        if not len(places[organ]):
            raise ValueError(f"label {organ} ({name}) is missing, without which the neck cannot be found")
    stem, jaw = places[BRAINSTEM], places[MANDIBLE]
    hinge = _hinge(jaw)
    away = jaw[:, 1:] - hinge
    distance = np.hypot(*away.T)
    angles = np.degrees(np.arctan2(away[:, 1], away[:, 0]))[distance > 2 * JAW_INNER_MM]
    ends = (float(np.percentile(angles, 2)), float(np.percentile(angles, 98)))
    joints = _joints(np.vstack([stem, places[CORD]]), top=stem[:, 2].min() - BELOW_BRAINSTEM_MM)
    turns = {"bend": np.radians(bend_deg), "opening": np.radians(jaw_deg)}
    return Posture(joints, hinge, ends, float(distance.max()), float(jaw[:, 2].min()), **turns)


def _hinge(jaw: np.ndarray) -> np.ndarray:
    """Return y and z of the condyles: the rear half of the mandible's upper centimetre."""
    upper = jaw[jaw[:, 2] > jaw[:, 2].max() - 10]
    rear = upper[upper[:, 1] <= np.median(upper[:, 1])]
    return np.asarray(rear[:, 1:].mean(axis=0))


def _joints(cord: np.ndarray, *, top: float) -> np.ndarray:
    """Return the joints (8, 3) along a smooth line through the cord, in front of it.

    Args:
        cord: (N, 3), points of brainstem and cord.
        top: z of the first joint.
    """
    x = float(np.median(cord[:, 0]))
    line = np.polynomial.Polynomial.fit(cord[:, 2], cord[:, 1], 3)
    heights = top - np.arange(0.0, 2 * VERTEBRA_MM * len(SHARES), 0.5)
    heights = heights[heights >= cord[:, 2].min()]
    middle = np.stack([line(heights), heights], axis=-1)
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    wanted = VERTEBRA_MM * np.arange(len(SHARES))
    if along[-1] < wanted[-1]:
        raise ValueError(f"the spinal cord is labelled for {along[-1]:.0f} mm, a neck needs {wanted[-1]:.0f}")
    y, z = (np.interp(wanted, along, middle[:, axis]) for axis in range(2))
    return np.stack([np.full(len(SHARES), x), y + np.interp(wanted, [0, 2 * VERTEBRA_MM], BEFORE_CORD_MM), z], axis=-1)
