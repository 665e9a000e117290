"""The picture of a result as the README shows it: fixed, moving before and after, and both differences, on two planes.

``python -m benchmarks.figure RESULT_DIR --fixed FIXED --moving MOVING --out docs/before_after.png``.
"""

from __future__ import annotations

import json
from pathlib import Path

import fire
import matplotlib.pyplot as plt
import numpy as np
import torch

from ncf.io.image_files import read_image
from ncf.space.geometry import spacing_mm
from ncf.space.sampling import moving_positions, sample


def draw(result_dir: str, *, fixed: str, moving: str, out: str, low: float = -1000.0, high: float = 300.0) -> None:
    """Write the picture of a result.

    Args:
        result_dir: its folder.
        fixed: the fixed scan.
        moving: the moving scan.
        out: path of the picture.
        low: intensity that is black; differences run from -(high - low) / 2 to (high - low) / 2.
        high: intensity that is white.
    """
    folder = Path(result_dir)
    target, source = read_image("fixed", fixed), read_image("moving", moving)
    affines = {"fixed_affine": target.affine.numpy(), "moving_affine": source.affine.numpy()}
    places = moving_positions(torch.zeros(1, 3, *target.shape[1:]), **affines)
    before = sample(source.as_tensor()[None] - low, places)[0, 0].numpy() + low
    after = read_image("warped", str(folder / "warped.nii.gz"))[0].numpy()
    image = target[0].numpy()
    spacing = spacing_mm(target.affine.numpy())
    panels = {"fixed": image, "moving, before": before, "moving, after": after}
    panels |= {"difference before": before - image, "difference after": after - image}
    figure, axes = plt.subplots(2, 5, figsize=(15, 6.2), facecolor="white")
    for row, axis in enumerate((1, 0)):
        across, up = (a for a in range(3) if a != axis)
        for cell, (title, volume) in zip(axes[row], panels.items(), strict=True):
            plane = np.take(volume, volume.shape[axis] // 2 - (volume.shape[axis] // 6 if axis == 0 else 0), axis=axis)
            shown = {"cmap": "gray", "vmin": low, "vmax": high}
            if title.startswith("difference"):
                shown = {"cmap": "RdBu_r", "vmin": -(high - low) / 2, "vmax": (high - low) / 2}
            cell.imshow(
                plane.T, origin="lower", aspect=spacing[up] / spacing[across], interpolation="bilinear", **shown
            )
            cell.set_axis_off()
            if row == 0:
                cell.set_title(title, fontsize=13)
    tre = json.loads((folder / "metrics.json").read_text()).get("tre_mm")
    if tre:
        words = f"landmark error {tre['before']['mean']:.1f} mm before, {tre['after']['mean']:.2f} mm after"
        figure.text(0.5, 0.01, words, ha="center", fontsize=13)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    fire.Fire(draw)
