"""Real pairs, end to end, where the scans lie beside the checkout (they are never part of it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pairs import PAIRS
from benchmarks.run import beyond, register

# looser than the benchmark's limits, by what seeds and processors differ: the benchmark says when its own are missed.
# One pair as in daily work, one whose every step is large and whose blobs are narrow, one that slides
GATES = {
    "lung_ct_real": {"TRE mm": 1.55},
    "lung_copd_blobs_8": {"TRE mm": 3.4},
    "liver_mr_d18": {"TRE mm of liver": 2.8, "TRE mm of wall": 3.6, "max mm of wall": 16.0},
}
TIMING = ("s", "MiB")  # what the machine's other work decides is for the benchmark to judge
BY_NAME = {pair.name: pair for pair in PAIRS}


@pytest.mark.data
@pytest.mark.parametrize("name", GATES)
def test_a_real_pair_reaches_its_numbers(name: str, tmp_path: Path) -> None:
    pair = BY_NAME[name]
    if pair.missing:
        pytest.skip("no ../shared/data beside the checkout")
    run = register(pair, seed=0, threads=2, preset=None, output_dir=tmp_path)
    limits = pair.limits | GATES[name]
    missed = {c: run[c] for c in limits if c not in TIMING and beyond(c, run[c], limits)}
    assert not missed, f"{missed} beyond {limits}"
