"""What keeps a fit fast and repeatable on an accelerator, as far as it can be seen without one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import gpu
from benchmarks.gpu import prepared
from benchmarks.pairs import Pair
from ncf.core.presets import presets
from ncf.fit import replay
from ncf.fit.field import FieldSpace
from ncf.fit.fitted import Fit
from ncf.fit.network import NCF
from ncf.fit.objective import Objective
from ncf.fit.optimizer import start_afresh
from ncf.fit.pyramid import PairImages, level_images
from ncf.fit.replay import Replayed
from ncf.fit.terms import ImageTerm, WeightedSum
from ncf.phantom.chest import PhantomPair
from ncf.space import trilinear
from ncf.space.sampling import Warp
from tests.fits import GENTLE, bytes_of, images_of, level, optimizer, terms

TO_THE_HOST = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.masked_select", "aten.item")
FROM_THE_HOST = ("aten.lift_fresh", "aten._to_copy")


class Recorder(TorchDispatchMode):
    """Counts torch's operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rpartition(".")[0]
        if name != "aten._to_copy" or "device" in (kwargs or {}):  # else it becomes another type where it is
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("offset_points", [0, 600])
def test_a_step_copies_nothing_to_or_from_the_host(
    chest: PhantomPair, offset_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trilinear, "DEVICES", ())  # what a GPU does
    network, pair = NCF(), images_of(chest)
    start_afresh(network, 0)
    space = FieldSpace(pair.fixed_shape, pair.fixed_affine)
    objective = Objective(
        network,
        loss=terms(),
        warp=Warp(),
        images=level_images(pair, 4000, least=12),
        space=space,
        control=space.control(300),
        amp=False,
    )
    if offset_points:
        objective.free_offsets(space.control(offset_points))

    def step() -> None:
        torch.stack(list(objective().values())).sum().backward()

    step()  # builds what every later step uses again
    with Recorder() as recorder:
        step()
    assert recorder.seen["aten.grid_sampler_3d_backward"] >= 1
    assert not {name: count for name, count in recorder.seen.items() if name in TO_THE_HOST + FROM_THE_HOST}


def on_the_gpu(chest: PhantomPair) -> PairImages:
    pair = images_of(chest)
    volumes = ("fixed", "moving", "fixed_weight", "moving_weight")
    return images_of(chest, **{name: getattr(pair, name).cuda() for name in volumes})


def of_the_gpu(fit: Fit) -> bytes:
    return bytes_of(replace(fit, field_vox=fit.field_vox.cpu()))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_gpu
def test_the_same_bytes_on_every_run_of_a_gpu_recorded_or_not(
    chest: PhantomPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, levels = on_the_gpu(chest), (level(20), level(20, offset_points=600, offset_rate=300))
    fits = [of_the_gpu(optimizer(*levels)(pair, NCF())) for _ in range(2)]
    monkeypatch.setattr(replay, "ONE_BY_ONE", 10**6)
    fits.append(of_the_gpu(optimizer(*levels)(pair, NCF())))
    assert fits[0] == fits[1] == fits[2]


@needs_gpu
def test_a_loss_that_asks_the_device_is_asked_for_one_by_one(
    chest: PhantomPair, caplog: pytest.LogCaptureFixture
) -> None:
    class Curious(torch.nn.MSELoss):
        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert float(input.min()) > -1  # waits for the device
            return super().forward(input, target)

    pair, found = on_the_gpu(chest), []
    for loss in (torch.nn.MSELoss(), Curious()):
        caplog.clear()
        with caplog.at_level("INFO"):
            own = optimizer(level(12), level(12), loss=WeightedSum({"photometric": ImageTerm(loss)}))
            found.append(of_the_gpu(own(pair, NCF())))
    assert found[0] == found[1] and caplog.text.count("one cannot be recorded") == 2


def test_elsewhere_a_step_is_itself() -> None:
    taken: list[int] = []

    def step() -> torch.Tensor:
        taken.append(len(taken))
        return torch.tensor(len(taken))

    replayed = Replayed(step, torch.device("cpu"))
    assert [int(replayed()) for _ in range(4)] == [1, 2, 3, 4] and taken == [0, 1, 2, 3]


@pytest.mark.slow
def test_the_measuring_command_tells_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(name: str, pair: Pair, *, device: str) -> tuple[Any, Any, Any]:
        inputs, whole, network = prepared(name, pair, device=device)
        assert len(whole.levels) == {"default": 3, "fast": 3}[name]
        return inputs, optimizer(GENTLE), network

    monkeypatch.setattr(gpu, "prepared", small)
    gpu.main("24,26,28", preset="default,fast", device="cpu", repeats=2, output_dir=str(tmp_path), copy_mib=1)
    told = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(told["presets"]) == ["default", "fast"] and told["gb_per_s"] > 0
    for numbers in told["presets"].values():
        assert numbers["same_bytes"] is True and len(numbers["seconds"]) == 2
        # one level of 3 steps on at most 4000 nodes, 18 volumes of 4 bytes each
        assert 0 < numbers["bytes_at_least"] <= 3 * 4400 * 18 * 4
        assert 0 < numbers["floor_s"] < min(numbers["seconds"])
        assert numbers["accuracy"]["tre_mm"]["count"] > 10 and numbers["accuracy"]["folding_fraction"]["all"] < 0.1
    assert "| default |" in (out := capsys.readouterr().out) and "| yes |" in out


def test_the_kernels_that_take_the_longest_are_told(chest: PhantomPair) -> None:
    found = gpu.kernels(optimizer(GENTLE), images_of(chest), NCF(), device="cpu")
    assert "aten::mm" in found and 0 < sum(found.values()) <= 100
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_kernels_are_named_by_what_they_do() -> None:
    general = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, std::array<char*>>"
    assert gpu.short(f"{general}(int, float)") == "vectorized_elementwise_kernel (CUDAFunctor_add)"
    for plain in ("aten::mm", "sm80_xmma_gemm_f32f32_execute_kernel__5x_cublas"):
        assert gpu.short(plain) == plain
    found = "void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::(anonymous namespace)::OpaqueType>"
    assert gpu.short(found) == "CatArrayBatchedCopy"


def test_a_preset_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SystemExit, match=f"error: no preset quick; there are: default, {', '.join(presets())}"):
        gpu.main(preset="quick", device="cpu")
