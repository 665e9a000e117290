"""A film of a series: two slices of every phase, as it was scanned and brought onto the fixed scan.

The slices are those in which most moves. Above, the anatomy moves, with the carried labels outlined;
below it must stand still.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ncf.cohort.plan import Plan
from ncf.core.files import write_whole
from ncf.core.names import WARPED_FILE
from ncf.io.image_files import read_image
from ncf.io.label_files import read_label
from ncf.pair.keys import affine_of
from ncf.report.material import windows
from ncf.report.paint import MOVING_LINE, grey
from ncf.report.slices import as_jpeg
from ncf.report.views import VIEWS, Cut, DisplaySpace, View, cut_of, pixel_mm
from ncf.result.folder import SavedResult
from ncf.series.facts import FIXED, SeriesFacts
from ncf.series.names import LABELS_FOLDER
from ncf.space.sampling import inside, sample

SHOWN = ("coronal", "sagittal")
TALL = 260  # pixels along the longest side of all slices, about
LETTER, LETTER_HIGH, EDGE, BEHIND = 9, 12, 2, (16, 20, 24)  # pixels of a letter and its distance from the edge
GAP, CAPTION = 4, 16  # pixels between slices, and of a line of text
QUALITY = 80
FRAME_MS = 400


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        name: of the phase.
        pixels: uint8 (rows, columns, 3).
    """

    name: str
    pixels: np.ndarray

    def jpeg(self) -> bytes:
        """Return the frame as JPEG."""
        return as_jpeg(self.pixels, QUALITY)


def frames_of(plan: Plan, facts: SeriesFacts) -> list[Frame]:
    """Return the frames of a series: the fixed scan, then every phase.

    Args:
        plan: of the series.
        facts: what is known of it.
    """
    pairs = {pair["name"]: pair for pair in plan.pairs}
    first = SavedResult(plan.folder(pairs[facts.phases[1].name]))
    space = DisplaySpace(first.grid("fixed"))
    cuts = cuts_of(space, facts.motion_mm)
    window = windows(first)["fixed"]
    fixed = read_image("fixed", plan.pairs[0]["fixed"])
    own = None if facts.label is None else facts.label.as_tensor()
    still = slices_of(cuts, space, fixed.as_tensor(), affine_of(fixed), window=window, label=own)
    found = [Frame(FIXED, _stacked(still, still))]
    for phase in facts.phases[1:]:
        pair = pairs[phase.name]
        scan = read_image("phase", pair["moving"])
        path = plan.output_dir / LABELS_FOLDER / f"{phase.name}.nii.gz"
        label = None if own is None or not path.exists() else read_label("label", path).as_tensor()
        warped = read_image("warped", str(plan.folder(pair) / WARPED_FILE))
        above = slices_of(cuts, space, scan.as_tensor(), affine_of(scan), window=window, label=label)
        below = slices_of(cuts, space, warped.as_tensor(), affine_of(warped), window=window, label=own)
        found.append(Frame(phase.name, _stacked(above, below)))
    return found


def film(frames: Sequence[Frame]) -> bytes:
    """Return an animated GIF of the frames, each with its name; it runs for ever.

    Args:
        frames: at least one.
    """
    pages = []
    for frame in frames:
        page = Image.new("RGB", (frame.pixels.shape[1], frame.pixels.shape[0] + CAPTION))
        page.paste(Image.fromarray(frame.pixels), (0, CAPTION))
        ImageDraw.Draw(page).text((3, 2), frame.name.encode("ascii", "replace").decode(), fill=(255, 255, 255))
        pages.append(page.quantize(128, dither=Image.Dither.NONE))
    file = io.BytesIO()
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:], duration=FRAME_MS, loop=0)
    return file.getvalue()


def cuts_of(space: DisplaySpace, motion_mm: np.ndarray) -> list[Cut]:
    """Return one slice of each view, the one in which most moves.

    Args:
        space: of the fixed grid.
        motion_mm: length of the displacement, (W, H, D).
    """
    weight = space.turned(motion_mm).astype(np.float64) ** 2
    if not weight.any():
        weight = np.ones_like(weight)
    found = []
    for view in (view for view in VIEWS if view.name in SHOWN):
        along = weight.sum(axis=tuple(a for a in range(3) if a != view.stacked))
        at = int(along.argmax())
        cut = cut_of(view, space.shape, side=TALL)
        found.append(Cut(view, np.array([at]), cut.across, cut.down))
    return found


def slices_of(
    cuts: Sequence[Cut],
    space: DisplaySpace,
    values: torch.Tensor,
    affine: np.ndarray,
    *,
    window: tuple[float, float],
    label: torch.Tensor | None,
) -> np.ndarray:
    """Return the slices of a scan side by side, all in one scale, with letters at their edges.

    Args:
        cuts: one slice each.
        space: in which they were cut.
        values: of the scan, (1, W, H, D).
        affine: of the scan, voxel -> RAS mm.
        window: the intensities that become black and white.
        label: a label map on the grid of the scan, whose outlines are drawn.

    Returns:
        (rows, columns, 3), uint8.
    """
    parts, scale = [], _scale(cuts, space)
    for cut in cuts:
        at = cut.positions(np.linalg.inv(affine) @ space.affine)
        there = inside(at, values.shape[1:])
        read = torch.where(there, sample(values[None], at, padding_mode="border"), values.min())[0, 0, 0]
        pixels = np.repeat(grey(read.numpy(), window)[..., None], 3, axis=-1)
        if label is not None:
            codes = torch.where(there, sample(label[None].float(), at, mode="nearest", padding_mode="border"), 0.0)
            pixels[_edge(codes[0, 0, 0].numpy())] = MOVING_LINE
        parts.append(_lettered(_enlarged(pixels, pixel_mm(cut, space), scale), cut.view))
    height = max(part.shape[0] for part in parts)
    padded = [np.pad(part, ((0, height - part.shape[0]), (0, GAP), (0, 0))) for part in parts]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def _edge(codes: np.ndarray) -> np.ndarray:
    """Return the pixels of labels that touch another label or none, bool."""
    edge = np.zeros(codes.shape, dtype=bool)
    upright, level = codes[1:] != codes[:-1], codes[:, 1:] != codes[:, :-1]
    edge[1:] |= upright
    edge[:-1] |= upright
    edge[:, 1:] |= level
    edge[:, :-1] |= level
    return edge & (codes > 0)


def _scale(cuts: Sequence[Cut], space: DisplaySpace) -> float:
    """Return the pixels of a mm, the same for all slices, so that what lies at one height is shown at one height."""
    sides = [
        mm * len(axis) for cut in cuts for mm, axis in zip(pixel_mm(cut, space), (cut.across, cut.down), strict=True)
    ]
    return TALL / max(sides)


def _lettered(pixels: np.ndarray, view: View) -> np.ndarray:
    """Return a slice with the letters of its directions at its edges."""
    picture = Image.fromarray(pixels)
    pen, (wide, high) = ImageDraw.Draw(picture), picture.size
    middle = ((wide - LETTER) // 2, (high - LETTER_HIGH) // 2)
    places = {view.left: (EDGE, middle[1]), view.right: (wide - LETTER - EDGE, middle[1])}
    places |= {view.top: (middle[0], EDGE), view.bottom: (middle[0], high - LETTER_HIGH - EDGE)}
    for letter, (x, y) in places.items():
        pen.rectangle((x - 1, y, x + LETTER, y + LETTER_HIGH), fill=BEHIND)
        pen.text((x + LETTER / 2, y + LETTER_HIGH / 2), letter, fill=(255, 255, 255), anchor="mm")
    return np.asarray(picture)


def _enlarged(pixels: np.ndarray, sizes_mm: tuple[float, float], scale: float) -> np.ndarray:
    """Return pixels enlarged to a scale, in pixels of a mm, so that they are as wide as they are high."""
    rows, columns = pixels.shape[:2]
    wide, high = columns * sizes_mm[0], rows * sizes_mm[1]
    return np.asarray(Image.fromarray(pixels).resize((max(1, round(wide * scale)), max(1, round(high * scale)))))


def _stacked(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return two rows of slices, one above the other."""
    return np.concatenate([above, np.zeros((GAP, above.shape[1], 3), np.uint8), below], axis=0)


def save_film(path: Path, frames: Sequence[Frame]) -> None:
    """Write the film of frames.

    Args:
        path: of the GIF.
        frames: of `frames_of`.
    """
    content = film(frames)
    write_whole(path, lambda temporary: temporary.write_bytes(content))
