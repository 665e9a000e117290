"""A fit's state as a file: it comes back, damage is seen, nothing in it is executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ncf.core.errors import PairError
from ncf.io.checkpoint import CHECKPOINT_FORMAT, load_checkpoint, save_checkpoint
from tests.refusing import refused


def state() -> dict[str, Any]:
    """What a run might keep, with a tensor that is a view and a string that is there twice."""
    numbers = torch.rand(64, 640, generator=torch.Generator().manual_seed(0))
    return {"network": {"a": numbers[:, 576:].T, "b": torch.arange(3)}, "kind": "ncf", "more": [1, 2.5, None, ("ncf",)]}


def test_a_checkpoint_comes_back_and_depends_on_content_alone(tmp_path: Path) -> None:
    path, again, want = tmp_path / "a.pt", tmp_path / "b.pt", state()
    save_checkpoint(path, want)
    got = load_checkpoint(path)
    torch.testing.assert_close(got["network"], want["network"], rtol=0, atol=0)
    assert list(got) == list(want) and got["kind"] == want["kind"] and got["more"] == want["more"]
    save_checkpoint(again, {**got, "kind": "".join(got["kind"])})  # an equal string, but another object
    assert path.read_bytes() == again.read_bytes()
    assert path.stat().st_size < 64 * 64 * 4 + 4096  # the view did not carry its storage along


def test_whole_numbers_are_packed(tmp_path: Path) -> None:
    codes = torch.randint(-8, 8, (60_000,), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    save_checkpoint(tmp_path / "a.pt", {"codes": codes})
    assert (tmp_path / "a.pt").stat().st_size < 40_000  # 4 of 8 bits are in use
    assert torch.equal(load_checkpoint(tmp_path / "a.pt")["codes"], codes)


def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    path, again, found = tmp_path / "a.pt", tmp_path / "b.pt", 0
    save_checkpoint(path, state())
    whole = path.read_bytes()
    for length in (0, 1, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("cannot read", load_checkpoint, path)
    for place in np.random.default_rng(0).integers(len(whole), size=200).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            save_checkpoint(again, load_checkpoint(path))
        except PairError:
            found += 1
        else:
            assert again.read_bytes() == whole  # only a byte of filling or of a date was hit
    assert found > 100


def test_a_checkpoint_is_never_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"format": CHECKPOINT_FORMAT, "x": Evil()}, tmp_path / "a.pt")
    refused("cannot read", load_checkpoint, tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "made").exists()  # the file would have done it


def test_other_formats_are_refused_by_number(tmp_path: Path) -> None:
    for content, found in (({"format": 99}, "99"), ({"w": torch.ones(2)}, "None"), (torch.ones(2), "None")):
        torch.save(content, tmp_path / "a.pt")
        line = f"format {found}, this program reads 3 and {CHECKPOINT_FORMAT}: register again"
        refused(line, load_checkpoint, tmp_path / "a.pt")
    refused("No such file", load_checkpoint, tmp_path / "missing.pt")
    with pytest.raises(TypeError, match="ndarray"):
        save_checkpoint(tmp_path / "b.pt", {"affine": np.eye(4)})
    with pytest.raises(ValueError, match="own entry"):
        save_checkpoint(tmp_path / "b.pt", {"format": 1})
