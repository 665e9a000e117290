"""Seconds, memory and repeatability of a fit on an accelerator, without file reading: ``python -m benchmarks.gpu``.

The phantom at 192 x 192 x 208 lies on the device before the clock starts, and the first fit of a preset, which also loads
kernels, is not counted. The floor is the time the device needs to move the bytes that no step can do without, at the
bandwidth that copying reaches there. OUTPUT_DIR/gpu.json has every number.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from torch.profiler import ProfilerActivity, profile

from benchmarks.methods import circumstances
from benchmarks.options import words
from benchmarks.pairs import Pair, with_phantom
from scripts.engine import Fit, PairOptimizer, prepare_pair
from scripts.guard import DeviceCheck
from scripts.presets import config_files, presets
from scripts.pyramid import PairImages
from scripts.summary import cell
from scripts.summary import markdown as rows

# A step at least: fixed, its weight and moving with its weight are read, the field and its gradient written and read, the
# warped image and its gradient written; each once, in float32.
VOLUMES_MOVED = 1 + 1 + 2 + 4 * 3 + 2
FLOAT_BYTES = 4
COPY_MIB, COPIES = 1024, 20
SLOWEST = 12  # kernels told
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
    """Prints a table of the presets and one of the kernels that take the longest; exits with status 1 without the device.

    Args:
        size: voxels of the phantom. preset: names, comma-separated. repeats: fits that are timed; the paper's is done once.
        copy_mib: of the copy by which the bandwidth is measured.
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
    (folder / "gpu.json").write_text(json.dumps({**circumstances(), **told, "presets": found}, indent=2), encoding="utf-8")
    print(f"{told['device']}, torch {told['torch']}, copies at {cell(bandwidth / 1e9)} GB/s")
    print(f"{preset_table(found)}\n")
    for name, numbers in ((n, told_of) for n, told_of in found.items() if told_of["kernels"]):
        print(f"{name}: " + ", ".join(f"{kernel} {cell(share)} %" for kernel, share in numbers["kernels"].items()))
    print(f"results in {folder}")


def measure(name: str, pair: Pair, *, device: str, repeats: int) -> dict[str, Any]:
    """The numbers of one preset: seconds of every timed fit and its levels, peak memory, whether all had the same bytes."""
    inputs, optimizer, network = prepared(name, pair, device=device)
    fits, seconds = [], []
    if name != "paper":  # it takes long, and the presets before it have loaded most kernels
        optimizer(inputs, network)
    _reset_peak(device)
    for _ in range(repeats):
        begun = time.perf_counter()
        fit = optimizer(inputs, network)
        _wait(device)
        seconds.append(time.perf_counter() - begun)
        fits.append(_fingerprint(fit))
    told = name != "paper" and torch.device(device).type == "cuda"  # a CPU's log of a whole fit takes minutes to read
    nodes = [int(np.prod(level["shape"])) for level in fit.history]
    steps = [len(next(iter(level["losses"].values()))) for level in fit.history]
    return {
        "seconds": seconds,
        "levels_s": [level["seconds"] for level in fit.history],
        "global_s": fit.global_s,
        "peak_gib": _peak_gib(device),
        "same_bytes": len(set(fits)) == 1 if repeats > 1 else None,
        "bytes_at_least": sum(n * s for n, s in zip(nodes, steps, strict=True)) * VOLUMES_MOVED * FLOAT_BYTES,
        "kernels": kernels(optimizer, inputs, network, device=device) if told else {},
    }


def prepared(name: str, pair: Pair, *, device: str) -> tuple[PairImages, PairOptimizer, torch.nn.Module]:
    """The pair on the device, and the fit and the network that a preset's config declares."""
    parser = ConfigParser()
    parser.read_config(list(config_files(None if name == "default" else name)))
    for option, path in (("fixed", pair.files["fixed"]), ("moving", pair.files["moving"])):
        parser[option] = path
    parser["output_dir"], parser["progress"], parser["device"] = pair.files["fixed"].parent, False, device
    inputs, _ = prepare_pair(parser.get_parsed_content("dataset")[0], device)
    return inputs, parser.get_parsed_content("inferer"), parser.get_parsed_content("network_def")


def kernels(optimizer: PairOptimizer, inputs: PairImages, network: torch.nn.Module, *, device: str) -> dict[str, float]:
    """Share in percent of the device's time of the kernels (on a CPU: operations) of one fit that take the most of it."""
    on_gpu = torch.device(device).type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as record:
        optimizer(inputs, network)
        _wait(device)
    times = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in record.key_averages()}
    whole = sum(times.values())
    return {key: 100 * times[key] / whole for key in sorted(times, key=lambda k: -times[k])[:SLOWEST]}


def copy_bandwidth(device: torch.device, *, mib: int) -> float:
    """Bytes per second, read and written together, of copying a block on the device."""
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
    """Markdown, one row a preset."""
    table = [["preset", "s (median)", "global stage, s", "levels, s", "peak GiB", "floor, s", "same bytes"]]
    for name, numbers in found.items():
        levels = " + ".join(cell(s) for s in numbers["levels_s"])
        same = {True: "yes", False: "NO", None: "-"}[numbers["same_bytes"]]
        middle = float(np.median(numbers["seconds"]))
        told = [cell(number) for number in (middle, numbers["global_s"])]
        table.append([name, *told, levels, cell(numbers["peak_gib"]), cell(numbers["floor_s"]), same])
    return rows(table)


def _fingerprint(fit: Fit) -> str:
    return hashlib.sha256(fit.field_vox.cpu().numpy().tobytes()).hexdigest()


def _wait(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gib(device: str) -> float:
    """What torch had allocated at most; nan on a CPU, where it does not count."""
    return torch.cuda.max_memory_allocated(device) / GIB if torch.device(device).type == "cuda" else float("nan")


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


if __name__ == "__main__":
    fire.Fire(main)
