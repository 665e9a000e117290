"""Seconds, memory, repeatability and accuracy of a fit on an accelerator: ``python -m benchmarks.gpu``.

The phantom at 192 x 192 x 208 lies on the device before the clock starts. The first fit of a preset also loads kernels
and is not counted. The referee of all benchmarks judges the field of the last one. The floor is the time that the
device needs to move the bytes which no step can do without, at the bandwidth that copying reaches there.
OUTPUT_DIR/gpu.json has every number.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from torch.profiler import ProfilerActivity, profile

from benchmarks.methods import circumstances, judged
from benchmarks.options import words
from benchmarks.pairs import Pair, with_phantom
from ncf.core.presets import config_files, presets
from ncf.evaluate.tables import cell
from ncf.evaluate.tables import markdown as rows
from ncf.fit.fitted import Fit
from ncf.fit.optimizer import PairOptimizer
from ncf.fit.pyramid import PairImages
from ncf.io.nifti import save_itk_field
from ncf.pair.prepare import prepare_batch
from ncf.run.guard import DeviceCheck

# What every step does at least: it reads fixed, its weight, and moving with its weight; it writes and reads the field
# and its gradient; it writes the warped image and its gradient. Each once, in float32.
VOLUMES_MOVED = 1 + 1 + 2 + 4 * 3 + 2
FLOAT_BYTES = 4
COPY_MIB, COPIES = 1024, 20
SLOWEST = 12  # so many kernels are named
SHORT = re.compile(r"^void |at::native::|\(anonymous namespace\)::|<.*|\(.*")  # what is left out of a kernel's name
FUNCTOR = re.compile(r"(\w*Functor\w*|\w+_kernel_cuda|\w+_functor)")  # what a general kernel does
GIB, MIB = 2**30, 2**20


def main(
    size: str = "192,192,208",
    *,
    preset: str = "default,fast,paper",
    device: str = "cuda",
    repeats: int = 3,
    output_dir: str | None = None,
    copy_mib: int = COPY_MIB,
) -> None:
    """Print a table of the presets and one of the slowest kernels; exit with status 1 without the device.

    Args:
        size: voxels of the phantom.
        preset: names, comma-separated.
        device: as torch names it.
        repeats: fits that are timed; the paper's is done once.
        output_dir: where everything goes; by default a new temporary folder.
        copy_mib: MiB of the copy by which the bandwidth is measured.
    """
    DeviceCheck(device).run()
    names = words(preset)
    if unknown := sorted(set(names) - {"default", *presets()}):
        sys.exit(f"error: no preset {', '.join(unknown)}; there are: default, {', '.join(presets())}")
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-gpu-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    pair = with_phantom(Pair("phantom"), folder / "phantom", size=tuple(int(n) for n in words(size)))
    bandwidth = copy_bandwidth(torch.device(device), mib=copy_mib)
    found = {name: measure(name, pair, device=device, repeats=1 if name == "paper" else repeats) for name in names}
    for numbers in found.values():
        numbers["floor_s"] = numbers["bytes_at_least"] / bandwidth
    told = {
        "device": _device_name(device),
        "torch": torch.__version__,
        "gb_per_s": bandwidth / 1e9,
        "size": words(size),
    }
    (folder / "gpu.json").write_text(
        json.dumps({**circumstances(), **told, "presets": found}, indent=2), encoding="utf-8"
    )
    print(f"{told['device']}, torch {told['torch']}, copies at {cell(bandwidth / 1e9)} GB/s")
    print(f"{preset_table(found)}\n")
    for name, numbers in ((n, told_of) for n, told_of in found.items() if told_of["kernels"]):
        print(f"{name}: " + ", ".join(f"{kernel} {cell(share)} %" for kernel, share in numbers["kernels"].items()))
    print(f"results in {folder}")


def measure(name: str, pair: Pair, *, device: str, repeats: int) -> dict[str, Any]:
    """Measure one preset.

    Args:
        name: of the preset.
        pair: has files.
        device: as torch names it.
        repeats: fits that are timed.

    Returns:
        Seconds of every timed fit and of its levels, peak memory in GiB, whether all fits gave the same bytes, and what
        the referee says.
    """
    inputs, optimizer, network = prepared(name, pair, device=device)
    fits, seconds = [], []
    if name != "paper":  # that one takes long, and the presets before it have loaded most kernels
        optimizer(inputs, network)
    _reset_peak(device)
    for _ in range(repeats):
        begun = time.perf_counter()
        fit = optimizer(inputs, network)
        _wait(device)
        seconds.append(time.perf_counter() - begun)
        fits.append(_fingerprint(fit))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.nii"
        save_itk_field(path, fit.field_vox[0].cpu(), inputs.fixed_affine)
        accuracy = judged(path, pair)
    # on a CPU, the log of a whole fit takes minutes to read
    told = name != "paper" and torch.device(device).type == "cuda"
    nodes = [int(np.prod(level.shape)) for level in fit.history]
    steps = [len(next(iter(level.losses.values()))) for level in fit.history]
    return {
        "seconds": seconds,
        "levels_s": [level.seconds for level in fit.history],
        "alignment_s": fit.alignment_s,
        "peak_gib": _peak_gib(device),
        "same_bytes": len(set(fits)) == 1 if repeats > 1 else None,
        "bytes_at_least": sum(n * s for n, s in zip(nodes, steps, strict=True)) * VOLUMES_MOVED * FLOAT_BYTES,
        "accuracy": accuracy,
        "kernels": kernels(optimizer, inputs, network, device=device) if told else {},
    }


def prepared(name: str, pair: Pair, *, device: str) -> tuple[PairImages, PairOptimizer, torch.nn.Module]:
    """Return the pair on the device, and the fit and the network that a preset's config declares.

    Args:
        name: of the preset.
        pair: has files.
        device: as torch names it.
    """
    parser = ConfigParser()
    parser.read_config(list(config_files(None if name == "default" else name)))
    for option, path in (("fixed", pair.files["fixed"]), ("moving", pair.files["moving"])):
        parser[option] = path
    parser["output_dir"], parser["progress"], parser["device"] = pair.files["fixed"].parent, False, device
    try:
        inputs, _ = prepare_batch(parser.get_parsed_content("dataset")[0], device)
    finally:
        parser.get_parsed_content("folders").release()  # nothing is written
    return inputs, parser.get_parsed_content("inferer"), parser.get_parsed_content("network_def")


def kernels(optimizer: PairOptimizer, inputs: PairImages, network: torch.nn.Module, *, device: str) -> dict[str, float]:
    """Return the slowest kernels of one fit (on a CPU: operations), with their share of the device's time in percent.

    Args:
        optimizer: fits.
        inputs: the pair.
        network: of the fit.
        device: as torch names it.
    """
    on_gpu = torch.device(device).type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as record:
        optimizer(inputs, network)
        _wait(device)
    times: Counter[str] = Counter()
    for event in record.key_averages():
        times[short(event.key)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return {key: 100 * time / times.total() for key, time in times.most_common(SLOWEST)}


def short(kernel: str) -> str:
    """Return the name of a kernel without the types it is made for, with what it does where that is one of them."""
    name, of = SHORT.sub("", kernel), FUNCTOR.search(kernel)
    return f"{name} ({of[1]})" if of and of[1] != name else name


def copy_bandwidth(device: torch.device, *, mib: int) -> float:
    """Measure the bytes per second, read and written together, of copying a block on the device.

    Args:
        device: as torch names it.
        mib: MiB of the block.
    """
    block = torch.zeros(mib * MIB, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    for count in (2, COPIES):  # the first two are for warming up
        _wait(device)
        begun = time.perf_counter()
        for _ in range(count):
            target.copy_(block)
        _wait(device)
    return 2 * COPIES * block.numel() / (time.perf_counter() - begun)


def preset_table(found: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table with one row for each preset."""
    table = [
        [
            "preset",
            "s (median)",
            "initial alignment, s",
            "levels, s",
            "peak GiB",
            "floor, s",
            "same bytes",
            "TRE mm",
            "Dice",
            "folds %",
        ]
    ]
    for name, numbers in found.items():
        levels = " + ".join(cell(s) for s in numbers["levels_s"])
        same = {True: "yes", False: "NO", None: "-"}[numbers["same_bytes"]]
        middle = float(np.median(numbers["seconds"]))
        told = [cell(number) for number in (middle, numbers["alignment_s"])]
        own = numbers["accuracy"]
        right = [own["tre_mm"]["mean"], own["dice"]["mean"], 100 * own["folding_fraction"]["all"]]
        memory = [cell(numbers["peak_gib"]), cell(numbers["floor_s"])]
        table.append([name, *told, levels, *memory, same, *(cell(number) for number in right)])
    return rows(table)


def _fingerprint(fit: Fit) -> str:
    """Return a hash of a fit's field."""
    return hashlib.sha256(fit.field_vox.cpu().numpy().tobytes()).hexdigest()


def _wait(device: str | torch.device) -> None:
    """Wait until the device has done all its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: str) -> None:
    """Begin a new measurement of peak memory."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gib(device: str) -> float:
    """Return the most that torch had allocated, in GiB; nan on a CPU, where it does not count."""
    return torch.cuda.max_memory_allocated(device) / GIB if torch.device(device).type == "cuda" else float("nan")


def _device_name(device: str) -> str:
    """Return the name of the accelerator."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


if __name__ == "__main__":
    fire.Fire(main)
